//! The examples of the README and of the guide, compiled with the documentation's.

macro_rules! pages {
    ($($page:ident: $path:literal,)+) => {
        $(#[doc = include_str!(concat!("../../../", $path))]
        struct $page;)+
    };
}

pages! {
    Readme: "README.md",
    Code: "docs/code.md",
    Conversations: "docs/conversations.md",
    Fit: "docs/fit.md",
    Lora: "docs/lora.md",
    Sampling: "docs/sampling.md",
    Search: "docs/search.md",
    StructuredOutput: "docs/structured-output.md",
    Tasks: "docs/tasks.md",
    Tools: "docs/tools.md",
}
