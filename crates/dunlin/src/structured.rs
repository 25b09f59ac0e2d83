//! Answers as values of a type.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::{Error, FormatState, GenerateOptions, Lm, Prompt};

impl Lm {
    /// Generates an answer that is a value of the type: JSON that is held to the type's schema and read, as
    /// [`OutputFormat::JsonSchema`](crate::OutputFormat::JsonSchema) says. The model does not see the schema, so the prompt
    /// should say what is asked for. `options.format` is replaced, all others are kept.
    ///
    /// ```no_run
    /// use dunlin::{GenerateOptions, Lm, Message, Prompt};
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct City {
    ///     name: String,
    ///     country: String,
    /// }
    ///
    /// let lm = Lm::load_from_model_id("qwen2.5-coder:0.5b")?;
    /// let prompt = Prompt::Chat(vec![Message::user("Name the capital of Japan, as JSON with name and country.")]);
    /// let city: City = lm.generate_as(&prompt, &GenerateOptions::greedy())?;
    /// # Ok::<(), dunlin::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Text`] where the type's schema asks for something that cannot be kept (a set, whose items differ);
    /// [`Error::Incomplete`] with the text so far where the answer was cut short; [`Error::Unreadable`] where the type refuses
    /// what its schema allows; as [`Lm::generate`].
    pub fn generate_as<T: DeserializeOwned + JsonSchema>(
        &self,
        prompt: &Prompt,
        options: &GenerateOptions,
    ) -> Result<T, Error> {
        let schema = schemars::schema_for!(T).to_value();
        let options = options.clone().with_json_schema(schema);
        let completion = self.generate(prompt, &options)?.complete()?;
        if completion.format != FormatState::Complete {
            return Err(Error::Incomplete {
                text: completion.text,
                reason: completion.finish_reason,
            });
        }
        serde_json::from_str(completion.formatted()).map_err(|source| Error::Unreadable {
            text: completion.formatted().to_owned(),
            source,
        })
    }
}
