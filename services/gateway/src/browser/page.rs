//! One page, driven by a few verbs: `{"id","method","params"}` in, `{"id","result"}` or
//! `{"id","error":{"code","message"}}` out, and `{"event",…}` in between.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::devtools::{Devtools, DevtoolsError};

/// How long a page may take to load, and an element to appear.
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether an element has appeared.
const LOOK: Duration = Duration::from_millis(100);

/// A page of a browser.
pub(super) struct Page {
    devtools: Devtools,
    target: String,
    session: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

/// Why a verb failed. A broken connection ends the conversation instead.
enum Failed {
    Said(&'static str, String),
    Broken(DevtoolsError),
}

impl From<DevtoolsError> for Failed {
    fn from(error: DevtoolsError) -> Self {
        match error {
            DevtoolsError::Refused(message) => Self::Said("op.conflict", message),
            late @ DevtoolsError::Late(_) => Self::Said("service.timeout", late.to_string()),
            broken => Self::Broken(broken),
        }
    }
}

fn invalid(message: impl Into<String>) -> Failed {
    Failed::Said("op.invalid_input", message.into())
}

impl Page {
    /// Opens a page of its own in the browser.
    pub(super) async fn open(mut devtools: Devtools) -> Result<Self, DevtoolsError> {
        let text = |value: &Value, name: &str| {
            value
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let made = devtools
            .call(None, "Target.createTarget", json!({ "url": "about:blank" }))
            .await?;
        let target = text(&made, "targetId");
        let attached = devtools
            .call(
                None,
                "Target.attachToTarget",
                json!({ "targetId": target, "flatten": true }),
            )
            .await?;
        let mut page = Self {
            devtools,
            target,
            session: text(&attached, "sessionId"),
        };
        for domain in ["Page.enable", "Runtime.enable"] {
            page.call(domain, json!({})).await?;
        }
        page.call("Page.setLifecycleEventsEnabled", json!({ "enabled": true }))
            .await?;
        Ok(page)
    }

    /// Closes the page; the browser and other pages stay.
    pub(super) async fn leave(&mut self) {
        let params = json!({ "targetId": self.target });
        let _ = self.devtools.call(None, "Target.closeTarget", params).await;
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value, DevtoolsError> {
        let session = self.session.clone();
        self.devtools.call(Some(&session), method, params).await
    }

    /// Waits until the page does something worth telling; gives it as events.
    pub(super) async fn notice(&mut self) -> Result<Vec<String>, DevtoolsError> {
        let message = self.devtools.next().await?;
        self.devtools.events.push(message);
        self.told().await
    }

    /// What the messages that were kept mean for the client.
    async fn told(&mut self) -> Result<Vec<String>, DevtoolsError> {
        let mut told = Vec::new();
        for message in std::mem::take(&mut self.devtools.events) {
            let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
            let params = message.get("params").cloned().unwrap_or_default();
            let event = match method {
                "Page.frameNavigated" if params.pointer("/frame/parentId").is_none() => {
                    json!({ "event": "navigated", "url": params.pointer("/frame/url") })
                }
                "Runtime.consoleAPICalled" => {
                    let words: Vec<String> = params
                        .get("args")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .map(said)
                        .collect();
                    json!({ "event": "console", "level": params.get("type"), "text": words.join(" ") })
                }
                "Page.javascriptDialogOpening" => {
                    // A page stands still until its dialog is answered, and nobody is there to do it.
                    let session = self.session.clone();
                    self.devtools
                        .send(
                            Some(&session),
                            "Page.handleJavaScriptDialog",
                            json!({ "accept": false }),
                        )
                        .await?;
                    json!({ "event": "dialog", "kind": params.get("type"), "message": params.get("message") })
                }
                "Page.downloadWillBegin" => {
                    json!({ "event": "download", "url": params.get("url"), "name": params.get("suggestedFilename") })
                }
                _ => continue,
            };
            told.push(event.to_string());
        }
        Ok(told)
    }

    /// Answers one request; events that happened meanwhile come first.
    pub(super) async fn answer(&mut self, text: &str) -> Result<Vec<String>, DevtoolsError> {
        let asked: Asked = match serde_json::from_str(text) {
            Ok(asked) => asked,
            Err(error) => {
                let message = format!("expected {{\"id\",\"method\",\"params\"}}: {error}");
                let refused =
                    json!({ "id": null, "error": { "code": "op.invalid_input", "message": message } });
                return Ok(vec![refused.to_string()]);
            }
        };
        let answer = match self.verb(&asked.method, &asked.params).await {
            Ok(result) => json!({ "id": asked.id, "result": result }),
            Err(Failed::Said(code, message)) => {
                json!({ "id": asked.id, "error": { "code": code, "message": message } })
            }
            Err(Failed::Broken(error)) => return Err(error),
        };
        let mut answers = self.told().await?;
        answers.push(answer.to_string());
        Ok(answers)
    }

    async fn verb(&mut self, method: &str, params: &Value) -> Result<Value, Failed> {
        match method {
            "goto" => {
                self.goto(text(params, "url")?, optional(params, "waitUntil"))
                    .await
            }
            "reload" => {
                self.call("Page.reload", json!({})).await?;
                self.loaded("load").await
            }
            "back" => self.step(-1).await,
            "forward" => self.step(1).await,
            "content" => self.eval("document.documentElement.outerHTML").await,
            "text" => self.eval("document.body ? document.body.innerText : ''").await,
            "evaluate" => self.eval(text(params, "expression")?).await,
            "screenshot" => self.screenshot(params).await,
            "click" => self.click(text(params, "selector")?).await,
            "fill" => self.fill(text(params, "selector")?, text(params, "value")?).await,
            "press" => self.press(text(params, "key")?).await,
            "waitFor" => self.wait_for(params).await,
            "close" => {
                self.call("Page.close", json!({})).await?;
                Ok(Value::Null)
            }
            other => Err(invalid(format!("there is no method {other:?}"))),
        }
    }

    async fn goto(&mut self, url: &str, until: Option<&str>) -> Result<Value, Failed> {
        let event = match until.unwrap_or("load") {
            "load" => "load",
            "domcontentloaded" => "DOMContentLoaded",
            "networkidle" => "networkIdle",
            other => {
                return Err(invalid(format!(
                    "waitUntil: {other:?} is not load, domcontentloaded or networkidle"
                )));
            }
        };
        let went = self.call("Page.navigate", json!({ "url": url })).await?;
        if let Some(error) = went.get("errorText").and_then(Value::as_str) {
            return Err(Failed::Said("service.transport", format!("{url}: {error}")));
        }
        // Within the same document nothing is loaded.
        if went.get("loaderId").is_none() {
            return Ok(json!({ "url": url }));
        }
        self.loaded(event).await
    }

    /// Waits for a moment in the life of the page's document.
    async fn loaded(&mut self, event: &str) -> Result<Value, Failed> {
        let is_it = |message: &Value| {
            message.get("method").and_then(Value::as_str) == Some("Page.lifecycleEvent")
                && message.pointer("/params/name").and_then(Value::as_str) == Some(event)
        };
        if !self.devtools.events.iter().any(is_it) {
            let waited = async {
                loop {
                    let message = self.devtools.next().await?;
                    let found = is_it(&message);
                    self.devtools.events.push(message);
                    if found {
                        return Ok(());
                    }
                }
            };
            match timeout(WAIT_LIMIT, waited).await {
                Ok(done) => done.map_err(Failed::Broken)?,
                Err(_) => {
                    return Err(Failed::Said(
                        "service.timeout",
                        format!("the page did not reach {event} in time"),
                    ));
                }
            }
        }
        let url = self.eval("location.href").await?;
        Ok(json!({ "url": url }))
    }

    async fn step(&mut self, by: i64) -> Result<Value, Failed> {
        let history = self.call("Page.getNavigationHistory", json!({})).await?;
        let current = history
            .get("currentIndex")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let entry = usize::try_from(current + by)
            .ok()
            .and_then(|index| history.get("entries")?.get(index)?.get("id").cloned());
        let Some(id) = entry else {
            return Err(Failed::Said(
                "op.conflict",
                "there is no page in that direction".to_owned(),
            ));
        };
        self.call("Page.navigateToHistoryEntry", json!({ "entryId": id }))
            .await?;
        self.loaded("load").await
    }

    async fn eval(&mut self, expression: &str) -> Result<Value, Failed> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params).await?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            let text = thrown
                .pointer("/exception/description")
                .or_else(|| thrown.get("text"))
                .and_then(Value::as_str)
                .unwrap_or("the page threw");
            return Err(Failed::Said("op.conflict", text.to_owned()));
        }
        Ok(answer
            .pointer_mut("/result/value")
            .map(Value::take)
            .unwrap_or_default())
    }

    async fn screenshot(&mut self, params: &Value) -> Result<Value, Failed> {
        let format = optional(params, "format").unwrap_or("png");
        if !matches!(format, "png" | "jpeg" | "webp") {
            return Err(invalid(format!("format: {format:?} is not png, jpeg or webp")));
        }
        let full = params
            .get("fullPage")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        let params = json!({ "format": format, "captureBeyondViewport": full });
        let params = if full {
            let metrics = self.call("Page.getLayoutMetrics", json!({})).await?;
            let size = metrics.get("cssContentSize").cloned().unwrap_or_default();
            let mut params = params;
            if let Some(object) = params.as_object_mut() {
                object.insert(
                    "clip".to_owned(),
                    json!({ "x": 0, "y": 0, "width": size.get("width"), "height": size.get("height"), "scale": 1 }),
                );
            }
            params
        } else {
            params
        };
        let shot = self.call("Page.captureScreenshot", params).await?;
        Ok(json!({ "format": format, "data": shot.get("data") }))
    }

    /// The middle of an element on the screen, scrolled into view.
    async fn place(&mut self, selector: &str) -> Result<(f64, f64), Failed> {
        let quoted = Value::from(selector).to_string();
        let found = self
            .eval(&format!(
                "(() => {{ const e = document.querySelector({quoted}); if (!e) return null; \
                 e.scrollIntoView({{block: 'center', inline: 'center'}}); const r = e.getBoundingClientRect(); \
                 return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
            ))
            .await?;
        match (
            found.get(0).and_then(Value::as_f64),
            found.get(1).and_then(Value::as_f64),
        ) {
            (Some(x), Some(y)) => Ok((x, y)),
            _ => Err(Failed::Said(
                "op.not_found",
                format!("nothing on the page matches {selector:?}"),
            )),
        }
    }

    async fn click(&mut self, selector: &str) -> Result<Value, Failed> {
        let (x, y) = self.place(selector).await?;
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params).await?;
        }
        Ok(Value::Null)
    }

    async fn fill(&mut self, selector: &str, value: &str) -> Result<Value, Failed> {
        let quoted = Value::from(selector).to_string();
        let focused = self
            .eval(&format!(
                "(() => {{ const e = document.querySelector({quoted}); if (!e) return false; e.focus(); \
                 if (e.select) e.select(); else document.getSelection().selectAllChildren(e); return true; }})()"
            ))
            .await?;
        if focused != Value::Bool(true) {
            return Err(Failed::Said(
                "op.not_found",
                format!("nothing on the page matches {selector:?}"),
            ));
        }
        // Typed as a person would, so that the page's own handlers see it.
        self.call("Input.insertText", json!({ "text": value })).await?;
        Ok(Value::Null)
    }

    async fn press(&mut self, key: &str) -> Result<Value, Failed> {
        let (code, text) = match key {
            "Enter" => (13, Some("\r")),
            "Tab" => (9, None),
            "Backspace" => (8, None),
            "Escape" => (27, None),
            "ArrowLeft" => (37, None),
            "ArrowUp" => (38, None),
            "ArrowRight" => (39, None),
            "ArrowDown" => (40, None),
            "Delete" => (46, None),
            single if single.chars().count() == 1 => (0, Some(single)),
            other => {
                return Err(invalid(format!(
                    "key: {other:?} is neither one character nor a known key"
                )));
            }
        };
        let mut down = json!({ "type": "keyDown", "key": key, "windowsVirtualKeyCode": code });
        if let (Some(text), Some(object)) = (text, down.as_object_mut()) {
            object.insert("text".to_owned(), text.into());
        }
        self.call("Input.dispatchKeyEvent", down).await?;
        let up = json!({ "type": "keyUp", "key": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up).await?;
        Ok(Value::Null)
    }

    async fn wait_for(&mut self, params: &Value) -> Result<Value, Failed> {
        if let Some(ms) = params.get("ms").and_then(Value::as_u64) {
            tokio::time::sleep(Duration::from_millis(ms).min(WAIT_LIMIT)).await;
            return Ok(Value::Null);
        }
        let selector = text(params, "selector")?;
        let quoted = Value::from(selector).to_string();
        let end = Instant::now() + WAIT_LIMIT;
        loop {
            if self.eval(&format!("!!document.querySelector({quoted})")).await? == Value::Bool(true) {
                return Ok(Value::Null);
            }
            if Instant::now() >= end {
                return Err(Failed::Said(
                    "service.timeout",
                    format!("{selector:?} did not appear in time"),
                ));
            }
            // The page has no event for "an element appeared" that survives its navigation.
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn text<'a>(params: &'a Value, name: &str) -> Result<&'a str, Failed> {
    optional(params, name).ok_or_else(|| invalid(format!("{name} has to be a text")))
}

fn optional<'a>(params: &'a Value, name: &str) -> Option<&'a str> {
    params.get(name).and_then(Value::as_str)
}

/// An argument of a console call as a text.
fn said(argument: &Value) -> String {
    match argument.get("value") {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => argument
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_arguments_become_words() {
        for (argument, word) in [
            (json!({ "type": "string", "value": "a b" }), "a b"),
            (json!({ "type": "number", "value": 3 }), "3"),
            (json!({ "type": "object", "description": "Array(2)" }), "Array(2)"),
            (json!({ "type": "undefined" }), ""),
        ] {
            assert_eq!(said(&argument), word);
        }
    }

    #[test]
    fn a_request_needs_its_three_parts_and_no_others() {
        assert!(serde_json::from_str::<Asked>(r#"{"id":1,"method":"text"}"#).is_ok());
        assert!(serde_json::from_str::<Asked>(r#"{"id":1}"#).is_err());
        assert!(serde_json::from_str::<Asked>(r#"{"id":1,"method":"text","parms":{}}"#).is_err());
    }
}
