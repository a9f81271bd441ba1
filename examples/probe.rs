use sconce::engine::{batch::Batch, blocks::BlockId, gguf::Gguf, kv_cache::KvCache, models::load, *};
use std::time::Instant;
fn main() {
    unsafe { sconce::engine::prepare_process() }
    let g = Gguf::open(std::path::Path::new(&std::env::args().nth(1).unwrap())).unwrap();
    let t = Instant::now();
    let mut m = load(&g, std::env::args().nth(2).unwrap().parse::<usize>().unwrap().try_into().unwrap()).unwrap();
    println!("load {:?}", t.elapsed());
    let mut cache = KvCache::new(m.spec(), 16 * 32);
    let mut lg = vec![];
    for (w, ctx, reps) in [(1usize, 1usize, 30), (8, 1, 15), (8, 500, 8), (16, 1, 8), (32, 1, 5)] {
        let t = Instant::now();
        for r in 0..reps {
            let mut b = Batch::default();
            for s in 0..w {
                let blocks: Vec<_> = (0..16u32).map(|i| BlockId((s as u32 % 32) * 16 + i)).collect();
                b.push(&[(100 + s + r) as u32], ctx + r % 10, &blocks, true);
            }
            m.forward(&b, &mut cache, &mut lg).unwrap();
        }
        let e = t.elapsed().as_secs_f64() / reps as f64;
        println!("decode w={w} ctx={ctx}: {:.2} ms/step {:.1} tok/s", e * 1e3, w as f64 / e);
    }
    for (n, start) in [(32usize, 0usize), (64, 0), (128, 0), (512, 0), (64, 448)] {
        let blocks: Vec<_> = (0..16u32).map(BlockId).collect();
        let toks: Vec<u32> = (0..n as u32).map(|i| (i * 7919) % 150000).collect();
        let t = Instant::now();
        for _ in 0..2 {
            let mut b = Batch::default();
            b.push(&toks, start, &blocks, true);
            m.forward(&b, &mut cache, &mut lg).unwrap();
        }
        let e = t.elapsed().as_secs_f64() / 2.;
        println!("prefill {n}@{start}: {:.1} ms {:.0} tok/s", e * 1e3, n as f64 / e);
    }
}
