//! Gets a model and says where it lies: `cargo run -p dunlin-hub --example pull -- smollm2:135m`
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ops::ControlFlow;

use dunlin_hub::{Hub, HubError, Progress};

fn main() -> Result<(), HubError> {
    let model = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let pulled = Hub::from_env()?.pull(&model.parse()?, &mut |progress| {
        match progress {
            Progress::Trying { source } => eprintln!("asking {source}"),
            Progress::Skipped { source, reason } => eprintln!("{source} is skipped: {reason}"),
            Progress::Waiting => eprintln!("another process is fetching it; waiting"),
            Progress::Notice(text) => eprintln!("{text}"),
            Progress::Downloading {
                done,
                total: Some(total),
            } if done == total => {
                eprintln!("{total} bytes are here");
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    println!("{}", pulled.path.display());
    Ok(())
}
