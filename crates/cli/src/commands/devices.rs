//! `dunlin devices`: what models can compute on.

use anyhow::Result;
use clap::Args;

use crate::output;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin devices
  dunlin devices --json

With --json: a list of {\"kind\",\"name\",\"cores\",\"tier\",\"memory_total\",\"memory_available\",\"bandwidth\"}, in bytes and bytes per \
second; what the system does not tell is null. The bandwidth is reckoned from the number of cores.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &DevicesArgs, terminal: &Terminal) -> Result<()> {
    let devices = dunlin::devices();
    if args.json {
        return output::json(&devices);
    }
    let unknown = || "?".to_owned();
    let header = ["DEVICE", "CORES", "KERNELS", "MEMORY", "AVAILABLE"].map(str::to_owned);
    let rows = devices.into_iter().map(|device| {
        [
            device.name.unwrap_or_else(|| "processor".to_owned()),
            device.cores.to_string(),
            device.tier.to_owned(),
            device.memory_total.map_or_else(unknown, output::bytes),
            device.memory_available.map_or_else(unknown, output::bytes),
        ]
    });
    output::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>())?;
    terminal.note("\nThis build computes on the processor only and uses no GPU");
    Ok(())
}
