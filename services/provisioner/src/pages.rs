//! Lists of machines, kept for as long as the rows they were read from have not changed.
//!
//! Reading a hundred rows costs over a millisecond, most of it in handing them over one by one;
//! asking whether any of them changed costs a tenth of that. So each request asks, in the database and
//! therefore also for changes by other replicas, and reads the rows only when the answer is yes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nimbus_model::{MachineId, UserId};
use nimbus_proto::machine::Machine;

/// Lists kept at most; above that all are forgotten, which costs each owner one reading.
const MOST: usize = 1024;

/// Whose list, before which machine, how many.
pub(crate) type Page = (UserId, Option<MachineId>, u32);
/// What changes when a row does.
type Fingerprint = (i64, i64);
/// A list with the fingerprint it was read under.
type Kept = (Fingerprint, Arc<Vec<Machine>>);

/// The lists.
#[derive(Default)]
pub(crate) struct Pages(Mutex<HashMap<Page, Kept>>);

impl Pages {
    /// The list, if it was read under this fingerprint.
    pub(crate) fn find(&self, page: &Page, fingerprint: Fingerprint) -> Option<Arc<Vec<Machine>>> {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages
            .get(page)
            .filter(|(under, _)| *under == fingerprint)
            .map(|(_, machines)| Arc::clone(machines))
    }

    /// Keeps a list that was read after this fingerprint was.
    pub(crate) fn keep(&self, page: Page, fingerprint: Fingerprint, machines: &[Machine]) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= MOST && !pages.contains_key(&page) {
            pages.clear();
        }
        pages.insert(page, (fingerprint, Arc::new(machines.to_vec())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_good_for_its_fingerprint_only_and_their_number_is_bounded() {
        let pages = Pages::default();
        let page = (UserId::fresh(), None, 100);
        pages.keep(page, (1, 7), &[]);
        assert!(pages.find(&page, (1, 7)).is_some());
        assert!(pages.find(&page, (1, 8)).is_none());
        assert!(pages.find(&(UserId::fresh(), None, 100), (1, 7)).is_none());
        for _ in 0..MOST * 2 {
            pages.keep((UserId::fresh(), None, 1), (0, 0), &[]);
        }
        assert!(pages.0.lock().unwrap().len() <= MOST);
    }
}
