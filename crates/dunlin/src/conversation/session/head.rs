//! What a session file says before the computed part.

use std::path::Path;

use dunlin_text::{DateTime, TokenId, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::conversation::history::TokenHistory;
use crate::conversation::{Conversation, Talk, Written};
use crate::{Error, Lm, Message, TemplateOptions};

/// How [`DateTime`] is read and written.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S";

/// The head of a session file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    model: Model,
    messages: Vec<Message>,
    summary: Option<String>,
    /// The moment that templates print.
    now: Option<String>,
    tools: Option<Json>,
    variables: Map<String, Json>,
    /// As `now`, where the program had set it.
    set_now: Option<String>,
    history: TokenHistory,
    last_answer: Option<Written>,
    /// Tokens of the computed part; 0: there is none.
    pub kv_tokens: usize,
}

/// What the tokens, and what was computed of them, depend on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Model {
    sha256: String,
    name: Option<String>,
    #[serde(rename = "kv_element")]
    kv_types: String,
    yarn_factor: Option<f32>,
    /// Weights of other types than in the file.
    #[serde(default)]
    weight_types: Option<String>,
}

impl Head {
    pub(super) fn of(conversation: &Conversation) -> Self {
        let (talk, template) = (&conversation.talk, &conversation.options.template);
        let moment = |now: DateTime| now.strftime(MOMENT);
        Head {
            model: Model::of(&conversation.lm),
            messages: talk.messages.clone(),
            summary: talk.summary.clone(),
            now: talk.now.map(moment),
            tools: template.tools.clone(),
            variables: template.variables.clone(),
            set_now: template.now.map(moment),
            history: talk.history.clone(),
            last_answer: talk.last_answer.clone(),
            kv_tokens: 0,
        }
    }

    /// The tokens that were computed.
    pub(super) fn computed(&self, tokenizer: &Tokenizer) -> Vec<TokenId> {
        let mut ids = self.history.ids(tokenizer);
        ids.truncate(self.kv_tokens);
        ids
    }

    /// Checks that the session is of this model, and that nothing in it contradicts itself.
    ///
    /// # Errors
    /// [`Error::SessionMismatch`], [`Error::SessionDamaged`].
    pub(super) fn check(&self, lm: &Lm, path: &Path) -> Result<(), Error> {
        self.model.check(&Model::of(lm), self.kv_tokens > 0, path)?;
        let tokenizer = lm.tokenizer();
        let is_known = |id: &TokenId| (*id as usize) < tokenizer.vocab_size();
        let answer = self.last_answer.iter().flat_map(|written| &written.ids);
        let moments = [&self.now, &self.set_now];
        let is_sound = self.history.is_sound(tokenizer)
            && answer.clone().all(is_known)
            && self.computed(tokenizer).len() == self.kv_tokens
            && moments
                .into_iter()
                .flatten()
                .all(|moment| moment.parse::<DateTime>().is_ok());
        match is_sound {
            true => Ok(()),
            false => Err(Error::SessionDamaged {
                path: path.to_owned(),
                reason: "its tokens are none of this model's, or its date is none".to_owned(),
            }),
        }
    }

    /// The conversation, with what decides its tokens.
    pub(super) fn into_talk(self) -> (Talk, TemplateOptions) {
        let moment = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let template = TemplateOptions {
            tools: self.tools,
            variables: self.variables,
            now: moment(self.set_now),
        };
        let talk = Talk {
            messages: self.messages,
            summary: self.summary,
            now: moment(self.now),
            history: self.history,
            last_answer: self.last_answer,
            asleep: None,
        };
        (talk, template)
    }
}

impl Model {
    fn of(lm: &Lm) -> Self {
        let config = lm.engine_config();
        Model {
            sha256: lm.sha256().to_owned(),
            name: lm.info().name.clone(),
            kv_types: config.kv_types.to_string(),
            yarn_factor: config.yarn_factor,
            weight_types: lm.type_plan().identity(),
        }
    }

    /// Checks that the session's model (`self`) is the one that is loaded. How it was loaded matters where something computed
    /// is to be used.
    fn check(&self, loaded: &Model, has_computed: bool, path: &Path) -> Result<(), Error> {
        let mismatch = |what, session: String, loaded: String| {
            Err(Error::SessionMismatch {
                path: path.to_owned(),
                what,
                session,
                loaded,
            })
        };
        if self.sha256 != loaded.sha256 {
            let named = |model: &Model| {
                let name = model.name.as_deref().unwrap_or("a model without name");
                format!("{name} (sha256 {})", model.sha256)
            };
            return mismatch("model", named(self), named(loaded));
        }
        if has_computed && self.kv_types != loaded.kv_types {
            let (session, loaded) = (&self.kv_types, &loaded.kv_types);
            return mismatch("KV type", session.clone(), loaded.clone());
        }
        if has_computed && self.weight_types != loaded.weight_types {
            let types = |model: &Model| match &model.weight_types {
                Some(types) => types.clone(),
                None => "those of the file".to_owned(),
            };
            return mismatch("types of weights", types(self), types(loaded));
        }
        if has_computed && self.yarn_factor != loaded.yarn_factor {
            let factor = |model: &Model| match model.yarn_factor {
                Some(factor) => factor.to_string(),
                None => "none".to_owned(),
            };
            return mismatch("YaRN factor", factor(self), factor(loaded));
        }
        Ok(())
    }
}
