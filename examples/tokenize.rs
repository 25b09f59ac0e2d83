//! A text as tokens, and the prompt that a chat template makes of it. No weights are read:
//! `cargo run --release --example tokenize -- [MODEL] [TEXT]`.

use std::io::Write as _;

use dunlin::{LoadOptions, Message, TemplateOptions, TokenizerFile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let text = arguments
        .next()
        .unwrap_or_else(|| "Hello <|im_end|> world".to_owned());
    let file = TokenizerFile::open(&model.parse()?, &mut LoadOptions::default())?;
    let mut out = std::io::stdout();
    let tokenizer = file.tokenizer();
    for id in tokenizer.encode(&text, false)? {
        writeln!(out, "{id:>8} {:?}", tokenizer.piece(id).unwrap_or_default())?;
    }
    let messages = [Message::user(text)];
    writeln!(
        out,
        "{}",
        file.render_chat(&messages, &TemplateOptions::default())?
    )?;
    let ids = file.encode_chat(&messages, &TemplateOptions::default())?;
    writeln!(out, "{ids:?}")?;
    Ok(())
}
