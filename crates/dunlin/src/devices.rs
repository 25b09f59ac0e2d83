//! The devices of a machine that a model can compute on.

use dunlin_compute::Tier;
use serde::Serialize;

use crate::bench::machine_memory;
use crate::{physical_cores, processor_name};

/// Bytes per second that one core reads of its memory while it decodes, and that all of them read together: what was measured
/// on servers and what two channels of DDR4 give. See `docs/performance.md`.
const CORE_BANDWIDTH: f64 = 12e9;
const MACHINE_BANDWIDTH: f64 = 40e9;

/// A device that models can compute on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Device {
    /// What it is.
    pub kind: DeviceKind,
    /// Its name as the system tells it.
    pub name: Option<String>,
    /// Physical cores that this process may use.
    pub cores: usize,
    /// Name of the kernels that it runs ([`Tier`]).
    pub tier: &'static str,
    /// Bytes of its memory; `None` where the system does not tell.
    pub memory_total: Option<u64>,
    /// Bytes of it that programs can have at present without swapping.
    pub memory_available: Option<u64>,
    /// Bytes per second that it reads of its memory while a model writes. Not measured: reckoned from the number of cores, 12
    /// GB/s each and 40 GB/s at most. [`with_bandwidth`](Device::with_bandwidth) sets what is known better.
    pub bandwidth: f64,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor with the memory of the machine.
    Cpu,
}

impl Device {
    /// The processor of this machine.
    #[must_use]
    pub fn cpu() -> Self {
        let cores = physical_cores();
        let memory = machine_memory();
        Device {
            kind: DeviceKind::Cpu,
            name: processor_name(),
            cores,
            tier: Tier::detect().name(),
            memory_total: memory.map(|(total, _)| total),
            memory_available: memory.map(|(_, available)| available),
            bandwidth: (cores as f64 * CORE_BANDWIDTH).min(MACHINE_BANDWIDTH),
        }
    }

    /// With this much memory, in bytes, all of it available: to ask what would fit another machine.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        (self.memory_total, self.memory_available) = (Some(bytes), Some(bytes));
        self
    }

    /// With this bandwidth of its memory, in bytes per second.
    #[must_use]
    pub fn with_bandwidth(mut self, bytes_per_second: f64) -> Self {
        self.bandwidth = bytes_per_second;
        self
    }
}

/// The devices of this machine that this build can compute on: the processor. There is no GPU among them, because this build
/// has no code for one.
#[must_use]
pub fn devices() -> Vec<Device> {
    vec![Device::cpu()]
}
