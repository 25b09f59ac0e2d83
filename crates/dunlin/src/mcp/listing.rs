//! The tools that a server lists.

use std::collections::HashSet;

use dunlin_text::{TextError, Tool};
use rmcp::model::{PaginatedRequestParams, Tool as Listed};
use rmcp::service::{Peer, RoleClient, ServiceError};
use serde_json::Value as Json;

use super::{McpError, McpOptions};
use crate::toolbox;

/// Pages of the list; servers of a few dozen tools have one.
const MOST_PAGES: usize = 64;

/// Asks for all pages of the list. Outer error: the connection or an answer; inner: the list itself.
pub(super) async fn list(
    peer: &Peer<RoleClient>,
    server: &str,
    options: &McpOptions,
) -> Result<Result<Vec<Listed>, McpError>, ServiceError> {
    let too_long = |limit, unit| McpError::ListTooLong {
        server: server.to_owned(),
        limit,
        unit,
    };
    let mut tools: Vec<Listed> = Vec::new();
    let mut bytes = 0;
    let mut page = PaginatedRequestParams::default();
    for _ in 0..MOST_PAGES {
        let listed = peer.list_tools(Some(page)).await?;
        bytes += listed.tools.iter().map(size).sum::<usize>();
        if bytes > options.max_message_bytes {
            return Ok(Err(McpError::MessageTooLarge {
                server: server.to_owned(),
                limit: options.max_message_bytes,
            }));
        }
        tools.extend(listed.tools);
        if tools.len() > options.max_tools {
            return Ok(Err(too_long(options.max_tools, "tools")));
        }
        page = match listed.next_cursor {
            Some(cursor) => PaginatedRequestParams::default().with_cursor(Some(cursor)),
            None => return Ok(Ok(tools)),
        };
    }
    Ok(Err(too_long(MOST_PAGES, "pages")))
}

/// Bytes of a tool as it is kept.
fn size(tool: &Listed) -> usize {
    serde_json::to_vec(tool).map_or(0, |json| json.len())
}

/// The tools that are wanted as models are told of them, and the server's own names of them.
pub(super) fn tools(
    listed: Vec<Listed>,
    server: &str,
    options: &McpOptions,
) -> Result<(Vec<Tool>, Vec<String>), McpError> {
    let is_wanted = |tool: &Listed| match &options.only {
        Some(names) => names.iter().any(|name| *name == tool.name),
        None => true,
    };
    if let Some(absent) = absent(&listed, options) {
        let names: Vec<&str> = listed.iter().map(|tool| &*tool.name).collect();
        return Err(McpError::NoSuchTool {
            server: server.to_owned(),
            tool: absent,
            offered: names.join(", "),
        });
    }
    let mut known = HashSet::new();
    let (mut tools, mut names) = (Vec::new(), Vec::new());
    for tool in listed.into_iter().filter(is_wanted) {
        let name = tool.name.clone().into_owned();
        let tool = tool_of(tool, options).map_err(|error| invalid(server, error))?;
        if !known.insert(name.clone()) {
            return Err(McpError::InvalidTool {
                server: server.to_owned(),
                tool: tool.name,
                reason: "the server lists two tools of this name".to_owned(),
            });
        }
        tools.push(tool);
        names.push(name);
    }
    match tools.is_empty() {
        true => Err(McpError::NoTools {
            server: server.to_owned(),
        }),
        false => Ok((tools, names)),
    }
}

/// A tool that is wanted and not listed.
fn absent(listed: &[Listed], options: &McpOptions) -> Option<String> {
    let is_listed = |name: &&String| listed.iter().any(|tool| tool.name == **name);
    let mut names = options.only.iter().flatten();
    names.find(|name| !is_listed(name)).cloned()
}

fn tool_of(listed: Listed, options: &McpOptions) -> Result<Tool, TextError> {
    let description = listed.description.as_deref();
    let description = description.or(listed.title.as_deref()).unwrap_or_default();
    let schema = Json::Object(listed.input_schema.as_ref().clone());
    let name = format!("{}{}", options.prefix, listed.name);
    Tool::new(name, description, toolbox::schema_for_model(schema))
}

fn invalid(server: &str, error: TextError) -> McpError {
    let server = server.to_owned();
    match error {
        TextError::InvalidTool { name, reason } => McpError::InvalidTool {
            server,
            tool: name,
            reason,
        },
        other => McpError::InvalidTool {
            server,
            tool: String::new(),
            reason: other.to_string(),
        },
    }
}

/// The names of tools, for messages.
pub(super) fn in_words(tools: &[Tool]) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    names.join(", ")
}
