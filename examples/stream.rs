//! An answer in asynchronous code: `cargo run --release --example stream -- [MODEL] [QUESTION]`.
//!
//! The stream runs in any executor; this one is of tokio.

use std::io::Write as _;
use std::time::Duration;

use dunlin::{AnswerEvent, Conversation, GenerateOptions, Lm};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let question = arguments
        .next()
        .unwrap_or_else(|| "What is the capital of France?".to_owned());
    let lm = tokio::task::spawn_blocking(move || Lm::load_from_model_id(&model)).await??;
    let options = GenerateOptions::greedy().with_max_tokens(200);
    let talk = Conversation::new(&lm).with_options(options);
    let mut answer = talk.send_stream(question);
    let mut out = std::io::stdout().lock();
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    let mut ticks = 0_u32;
    loop {
        tokio::select! {
            event = answer.next() => match event.transpose()? {
                Some(AnswerEvent::Text(piece)) => {
                    write!(out, "{piece}")?;
                    out.flush()?;
                }
                Some(_) => {}
                None => break,
            },
            // The executor goes on with other work meanwhile.
            _ = clock.tick() => ticks += 1,
        }
    }
    let talk = answer.into_conversation().await;
    writeln!(
        out,
        "\n[{} messages; the clock ticked {ticks} times]",
        talk.messages().len()
    )?;
    Ok(())
}
