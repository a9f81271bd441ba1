//! From a step's logits to what is wanted of them: the best token is found where the logits are, and only its number and
//! its logit cross the bus.

use candle_core::{D, DType, Result, Tensor};

use crate::engine::{
    batch::{Batch, Want},
    models::{Best, Outcome},
};

/// `logits` are those of the sampled rows, of shape (sampled, vocabulary).
pub fn sample(logits: &Tensor, batch: &Batch, outcome: &mut Outcome) -> Result<()> {
    if batch.sampled.iter().any(|(_, want)| *want == Want::Hidden) {
        candle_core::bail!("a device's decoder gives logits only");
    }
    let all = rows(logits, batch, Want::Logits)?;
    if let Some(all) = all {
        outcome.logits = all.flatten_all()?.to_vec1()?;
    }
    if let Some(greedy) = rows(logits, batch, Want::Best)? {
        outcome.best = best(&greedy.narrow(1, 0, batch.choices)?)?;
    }
    Ok(())
}

/// Those rows of which `want` is wanted, if there are any.
fn rows(logits: &Tensor, batch: &Batch, want: Want) -> Result<Option<Tensor>> {
    let indices: Vec<u32> = (0..).zip(&batch.sampled).filter(|(_, (_, w))| *w == want).map(|(i, _)| i).collect();
    match indices.len() {
        0 => Ok(None),
        n if n == batch.sampled.len() => Ok(Some(logits.clone())),
        n => Ok(Some(logits.index_select(&Tensor::from_vec(indices, n, logits.device())?, 0)?)),
    }
}

/// Of each row the lowest id of those with the largest logit. (A device's arg-max gives any of them.)
fn best(logits: &Tensor) -> Result<Vec<Best>> {
    let (rows, choices) = logits.dims2()?;
    let logits = logits.contiguous()?;
    let ids = Tensor::arange(0, choices as u32, logits.device())?.broadcast_as((rows, choices))?;
    let largest = logits.max_keepdim(D::Minus1)?;
    let nobody = Tensor::full(choices as u32, (rows, choices), logits.device())?;
    let tokens = logits.broadcast_eq(&largest)?.where_cond(&ids.contiguous()?, &nobody)?.min(D::Minus1)?;
    // Devices differ in whether a NaN is the largest: it is looked for by itself.
    let broken = logits.ne(&logits)?.to_dtype(DType::F32)?.sum(D::Minus1)?;
    let parts = tokens.to_vec1::<u32>()?.into_iter().zip(largest.squeeze(1)?.to_vec1::<f32>()?);
    let best = |((token, logit), broken)| match broken > 0.0 {
        true => Best { token: 0, logit: f32::NAN },
        false => Best { token, logit },
    };
    Ok(parts.zip(broken.to_vec1::<f32>()?).map(best).collect())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[track_caller]
    fn check(rows: &[&[f32]], expected: &[(u32, f32)]) {
        let width = rows[0].len();
        let logits = Tensor::from_vec(rows.concat(), (rows.len(), width), &Device::Cpu).unwrap();
        let found: Vec<_> = best(&logits).unwrap().into_iter().map(|b| (b.token, b.logit)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn best_of_equals_is_the_first() {
        check(&[&[1.0, 3.0, 2.0], &[-5.0, -6.0, -5.0], &[0.0, -0.0, 0.0]], &[(1, 3.0), (0, -5.0), (0, 0.0)]);
        check(&[&[f32::NEG_INFINITY; 3]], &[(0, f32::NEG_INFINITY)]);
        check(&[&[0.0, f32::INFINITY, f32::INFINITY]], &[(1, f32::INFINITY)]);
    }

    #[test]
    fn a_nan_anywhere_spoils_its_own_row_only() {
        for at in 0..3 {
            let mut row = [1.0, 2.0, 3.0];
            row[at] = f32::NAN;
            let logits = Tensor::from_vec([&row[..], &[4.0, 6.0, 5.0]].concat(), (2, 3), &Device::Cpu).unwrap();
            let found = best(&logits).unwrap();
            assert!(found[0].logit.is_nan(), "{found:?}");
            assert_eq!(found[1], Best { token: 1, logit: 6.0 });
        }
    }
}
