//! What only CUDA's driver can say of a device.

use candle_core::{CudaDevice, Result, cuda_backend::WrapErr, cuda_backend::cudarc::driver::result};

/// The device's generation, such as (8, 0) for Ampere.
pub fn compute_capability(device: &CudaDevice) -> Result<(i32, i32)> {
    device.cuda_stream().context().compute_capability().w()
}

/// Bytes of the device's memory that are free.
pub fn free_bytes(device: &CudaDevice) -> Result<u64> {
    device.cuda_stream().context().bind_to_thread().w()?;
    let (free, _) = result::mem_get_info().w()?;
    Ok(free as u64)
}
