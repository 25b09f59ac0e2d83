//! The text side of a model file: tokenizer and chat template, without weights.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use dunlin_format::{Gguf, Metadata};
use dunlin_text::{ChatTemplate, TemplateInput, TextError, TokenId, Tokenizer};

use crate::load::{LoadOptions, locate};
use crate::prompt::{
    Message, SpecialTexts, Stretch, TemplateOptions, encode_conversation, split_conversation,
    template_input,
};
use crate::{Error, ModelRef};

/// Tokenizer and chat template of a model, read from its metadata alone: vocabulary-only files work, and no weight is
/// touched. Clones share everything.
#[derive(Clone, Debug)]
pub struct TokenizerFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    gguf: Arc<Gguf>,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Collected at the first conversation.
    special: OnceLock<SpecialTexts>,
}

impl TokenizerFile {
    /// Opens the file of a model, fetching it where it is not here.
    ///
    /// # Errors
    /// What keeps the model from being fetched or opened, and [`Error::Text`] for a tokenizer that is not supported.
    pub fn open(model: &ModelRef, options: &mut LoadOptions<'_>) -> Result<Self, Error> {
        let pulled = locate(model, options)?;
        Self::open_path(&pulled.path)
    }

    /// Opens a file of this machine.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_path(path: &Path) -> Result<Self, Error> {
        Self::from_gguf(Arc::new(Gguf::open(path)?))
    }

    /// The text side of an open file.
    ///
    /// A chat template that cannot be compiled is no error here but at its first use: such a model can still complete
    /// text.
    ///
    /// # Errors
    /// [`Error::Text`] for a tokenizer that is not supported or damaged.
    pub fn from_gguf(gguf: Arc<Gguf>) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_gguf(gguf.metadata())?;
        let template = ChatTemplate::from_gguf(gguf.metadata(), &tokenizer).ok();
        let inner = Inner {
            gguf,
            tokenizer,
            template,
            special: OnceLock::new(),
        };
        Ok(TokenizerFile {
            inner: Arc::new(inner),
        })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.inner.tokenizer
    }

    /// All metadata of the file.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        self.inner.gguf.metadata()
    }

    /// The file.
    #[must_use]
    pub fn gguf(&self) -> &Arc<Gguf> {
        &self.inner.gguf
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] for a base model, [`Error::Text`] for a template that cannot be compiled.
    pub fn chat_template(&self) -> Result<&ChatTemplate, Error> {
        match &self.inner.template {
            Some(template) => Ok(template),
            // Compiled again for the reason why it cannot be.
            None => match ChatTemplate::from_gguf(self.metadata(), self.tokenizer()) {
                Err(TextError::NoChatTemplate) | Ok(_) => Err(Error::NoChatTemplate),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The prompt text of a conversation, the assistant's turn opened at its end, byte for byte as transformers renders
    /// it.
    ///
    /// # Errors
    /// As [`chat_template`](Self::chat_template), and what the template says against the conversation.
    pub fn render_chat(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
    ) -> Result<String, Error> {
        let input = template_input(messages, options);
        Ok(self.chat_template()?.render(&input)?)
    }

    /// The prompt text of a conversation given as the template's own input.
    ///
    /// # Errors
    /// As [`render_chat`](Self::render_chat).
    pub fn render(&self, input: &TemplateInput) -> Result<String, Error> {
        Ok(self.chat_template()?.render(input)?)
    }

    /// The token ids of a conversation. No text in a message becomes a control token: see [`Prompt::Chat`](crate::Prompt::Chat).
    ///
    /// # Errors
    /// As [`render_chat`](Self::render_chat).
    pub fn encode_chat(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
    ) -> Result<Vec<TokenId>, Error> {
        let input = template_input(messages, options);
        let template = self.chat_template()?;
        encode_conversation(self.tokenizer(), self.special(), template, &input)
    }

    /// A conversation in stretches, each a control token of the template with the text behind it.
    pub(crate) fn split(&self, input: &TemplateInput) -> Result<Vec<Stretch>, Error> {
        split_conversation(self.special(), self.chat_template()?, input)
    }

    fn special(&self) -> &SpecialTexts {
        self.inner
            .special
            .get_or_init(|| SpecialTexts::of(self.tokenizer()))
    }

    /// The token ids of a text to be continued: BOS by the model's own rule, nothing behind, and control tokens as the
    /// text of their characters.
    ///
    /// # Errors
    /// [`Error::Text`] for a text that the vocabulary cannot express.
    pub fn encode_completion(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let mut ids = self.inner.tokenizer.encode(text, false)?;
        // EOS would tell the model that the text to be continued is over.
        if let Some(bos) = self
            .inner
            .tokenizer
            .bos()
            .filter(|_| self.inner.tokenizer.adds_bos())
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}
