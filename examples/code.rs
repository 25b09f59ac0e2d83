//! A gap in code filled in: `cargo run --release --example code -- [MODEL]`.

use std::io::Write as _;

use dunlin::{CodeCompleter, CodeEnd, CodeOptions, CodeRequest, LoadOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = std::env::args().nth(1);
    let model = model.unwrap_or_else(|| "qwen2.5-coder:0.5b".to_owned());
    let coder = CodeCompleter::load(model.parse()?, LoadOptions::default())?;
    let mut request = CodeRequest::new(
        "from prices import net_to_gross\n\n\ndef price_tag(name, net):\n    ",
        "\n\n\nprint(price_tag(\"apple\", 2.0))\n",
    )
    .with_path("tags.py");
    if coder.takes_files() {
        request = request.with_repository("shop").with_file(
            "prices.py",
            "def net_to_gross(net, factor=1.19):\n    return net * factor\n",
        );
    }
    let options = CodeOptions::new().with_end(CodeEnd::Block);
    let completion = coder.complete(&request, &options)?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{}[{}]{}",
        request.prefix, completion.text, request.suffix
    )?;
    writeln!(
        out,
        "{} tokens of prompt, {} of completion",
        completion.usage.prompt_tokens, completion.usage.completion_tokens
    )?;
    Ok(())
}
