//! What of the `DevTools` protocol does not pass.

use serde::Deserialize;
use serde_json::json;

/// Methods that end the browser for everybody, or give its protocol to a page.
const REFUSED: &[&str] = &[
    "Browser.close",
    "Browser.crash",
    "Browser.crashGpuProcess",
    "Target.exposeDevToolsProtocol",
];

#[derive(Deserialize)]
struct Head<'a> {
    id: Option<i64>,
    #[serde(borrow)]
    method: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "sessionId")]
    session: Option<String>,
}

/// Passes a message of a client, or gives the answer that refuses it.
pub(super) fn check(text: &str) -> Result<(), String> {
    let Ok(head) = serde_json::from_str::<Head<'_>>(text) else {
        return Err(answer(
            None,
            None,
            "the message is not a request of the DevTools protocol",
        ));
    };
    let method = head.method.as_deref().unwrap_or_default();
    if REFUSED.contains(&method) {
        let message = format!(
            "{method} is not allowed: the browser belongs to the sandbox; close the session or stop the sandbox"
        );
        return Err(answer(head.id, head.session, &message));
    }
    Ok(())
}

fn answer(id: Option<i64>, session: Option<String>, message: &str) -> String {
    // -32000 is what DevTools itself answers to what it will not do.
    let mut answer = json!({ "id": id, "error": { "code": -32000, "message": message } });
    if let (Some(session), Some(object)) = (session, answer.as_object_mut()) {
        object.insert("sessionId".to_owned(), session.into());
    }
    answer.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_requests_pass() {
        for text in [
            r#"{"id":1,"method":"Browser.getVersion"}"#,
            r#"{"id":2,"method":"Page.navigate","params":{"url":"data:,x"},"sessionId":"S"}"#,
            r#"{"id":3,"method":"Target.closeTarget","params":{"targetId":"T"}}"#,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_would_end_the_browser_is_answered_in_its_place() {
        for method in REFUSED {
            let text = json!({ "id": 7, "method": method, "sessionId": "S" }).to_string();
            let refusal: serde_json::Value = serde_json::from_str(&check(&text).unwrap_err()).unwrap();
            assert_eq!(refusal["id"], 7);
            assert_eq!(refusal["sessionId"], "S");
            assert!(refusal["error"]["message"].as_str().unwrap().contains(method));
        }
        // Escapes are another spelling of the same name.
        assert!(check(r#"{"id":1,"method":"Browser.cl\u006fse"}"#).is_err());
        assert!(check("nonsense").is_err());
    }
}
