//! On what a model computes.

use crate::Error;
use dunlin_compute::Tier;

/// Threads, kernels and GPU layers. The default is the processor, with one thread a physical core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceConfiguration {
    /// Threads that compute; `None`: [`physical_cores`].
    pub threads: Option<usize>,
    /// Layers to compute on a GPU. This build has none, so anything but 0 is [`Error::GpuNotInBuild`].
    pub gpu_layers: u32,
    /// Kernels to use; `None`: the best that the processor has.
    pub tier: Option<Tier>,
}

impl DeviceConfiguration {
    /// The processor with its defaults.
    #[must_use]
    pub fn cpu() -> Self {
        Self::default()
    }

    /// With this number of threads.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// With this number of layers on a GPU.
    #[must_use]
    pub fn with_gpu_layers(mut self, gpu_layers: u32) -> Self {
        self.gpu_layers = gpu_layers;
        self
    }

    /// With these kernels.
    #[must_use]
    pub fn with_tier(mut self, tier: Tier) -> Self {
        self.tier = Some(tier);
        self
    }

    /// Threads and kernels, with the defaults filled in.
    ///
    /// # Errors
    /// [`Error::GpuNotInBuild`].
    pub(crate) fn resolve(self) -> Result<(usize, Tier), Error> {
        if self.gpu_layers > 0 {
            let gpu_layers = self.gpu_layers;
            return Err(Error::GpuNotInBuild { gpu_layers });
        }
        let threads = self.threads.unwrap_or_else(physical_cores).max(1);
        Ok((threads, self.tier.unwrap_or_else(Tier::detect)))
    }
}

/// Physical cores of this machine, or fewer where this process may use fewer (container limits, affinity). Hardware
/// threads of one core share its arithmetic units, so that more threads than this do not compute faster.
#[must_use]
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(usize::MAX, |cores| cores.get());
    num_cpus::get_physical().min(allowed).max(1)
}
