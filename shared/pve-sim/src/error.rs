//! Refusals, worded and numbered as PVE does.

use std::collections::BTreeMap;

use crate::timing::Step;

/// An answer with a status of 400 or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) errors: BTreeMap<String, String>,
    /// How long PVE takes to say so.
    pub(crate) after: Option<Step>,
}

impl ApiError {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            errors: BTreeMap::new(),
            after: None,
        }
    }

    /// 500: whatever a method dies of.
    pub(crate) fn died(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// 400 with one text per parameter.
    pub(crate) fn parameters(errors: BTreeMap<String, String>) -> Self {
        Self {
            errors,
            ..Self::new(400, "Parameter verification failed.")
        }
    }

    pub(crate) fn parameter(name: &str, text: impl Into<String>) -> Self {
        Self::parameters(BTreeMap::from([(name.to_owned(), text.into())]))
    }

    /// 401: held back, and without a body.
    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(401, message).after(Step::AuthRefused)
    }

    pub(crate) fn no_such_config(node: &str, vmid: u32) -> Self {
        Self::died(format!(
            "Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"
        ))
    }

    pub(crate) fn after(mut self, step: Step) -> Self {
        self.after = Some(step);
        self
    }
}
