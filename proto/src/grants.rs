//! Who may use what on the bus. One table; credentials are minted from it.

use nimbus_bus::{Event, Grants, Method, Work};

use crate::{auth, event, ippool, machine, node, work};

/// The services that speak on the bus.
pub const SERVICES: &[&str] = &["gateway", "auth", "ippool", "provisioner"];

fn published<E: Event>() -> String {
    format!("nimbus.v1.event.{}.{}.>", E::DOMAIN, E::KIND)
}

/// What `service` may do on the bus; `None` for a name that is not a service.
///
/// | service | calls | publishes | listens to |
/// |---|---|---|---|
/// | gateway | the whole public surface of auth, ippool and provisioner | – | all events |
/// | auth | – | user, credential | credential revoked |
/// | ippool | auth's verifying keys | address | user signed in, credential revoked |
/// | provisioner | ippool's reserve, confirm, allocate, release, status; auth's verifying keys | operation, machine | credential revoked |
#[must_use]
pub fn of(service: &str) -> Option<Grants> {
    let keys = auth::VerifyingKeys::subject();
    Some(match service {
        "gateway" => Grants {
            serves: vec![],
            calls: vec![
                auth::Register::subject(),
                auth::Login::subject(),
                auth::Logout::subject(),
                auth::ExchangeSession::subject(),
                auth::ExchangeToken::subject(),
                auth::Me::subject(),
                auth::ChangePassword::subject(),
                auth::ListTokens::subject(),
                auth::CreateToken::subject(),
                auth::RevokeToken::subject(),
                auth::ListSessions::subject(),
                auth::RevokeSession::subject(),
                auth::Setup::subject(),
                keys,
                ippool::List::subject(),
                ippool::Status::subject(),
                ippool::Reconcile::subject(),
                machine::Create::subject(),
                machine::List::subject(),
                machine::Get::subject(),
                machine::Delete::subject(),
                machine::Power::subject(),
                machine::GetOperation::subject(),
                machine::ListOperations::subject(),
                machine::ClaimKey::subject(),
                machine::Reconcile::subject(),
                node::ListNodes::subject(),
                node::GetCatalog::subject(),
                node::Preview::subject(),
                node::ListGuests::subject(),
                node::GetStats::subject(),
                node::Health::subject(),
            ],
            events_publish: vec![],
            events_subscribe: vec!["nimbus.v1.event.>".to_owned()],
            work_push: vec![],
            work_pull: vec![],
            leases: false,
        },
        "auth" => Grants {
            serves: vec!["auth".to_owned()],
            calls: vec![keys],
            events_publish: vec![
                published::<event::UserRegistered>(),
                published::<event::UserSignedIn>(),
                published::<event::CredentialRevoked>(),
            ],
            events_subscribe: vec![published::<event::CredentialRevoked>()],
            work_push: vec![],
            work_pull: vec![],
            leases: true,
        },
        "ippool" => Grants {
            serves: vec!["ippool".to_owned()],
            calls: vec![keys],
            events_publish: vec![published::<event::AddressChanged>()],
            events_subscribe: vec![
                published::<event::UserSignedIn>(),
                published::<event::CredentialRevoked>(),
            ],
            work_push: vec![],
            work_pull: vec![],
            leases: true,
        },
        "provisioner" => Grants {
            serves: vec!["provisioner".to_owned()],
            calls: vec![
                keys,
                ippool::Reserve::subject(),
                ippool::Confirm::subject(),
                ippool::Allocate::subject(),
                ippool::Release::subject(),
                ippool::Status::subject(),
            ],
            events_publish: vec![
                published::<event::OperationProgressed>(),
                published::<event::MachineCreated>(),
                published::<event::MachineChanged>(),
                published::<event::MachineDeleted>(),
            ],
            events_subscribe: vec![published::<event::CredentialRevoked>()],
            work_push: vec![work::Operate::QUEUE.to_owned()],
            work_pull: vec![work::Operate::QUEUE.to_owned()],
            leases: true,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_grants_and_nobody_else() {
        for service in SERVICES {
            assert!(of(service).is_some(), "{service}");
        }
        assert!(of("stranger").is_none());
    }

    #[test]
    fn only_the_gateway_may_ask_auth_for_more_than_its_keys() {
        for service in SERVICES.iter().filter(|s| **s != "gateway") {
            let calls = of(service).expect("listed").calls;
            assert!(
                calls
                    .iter()
                    .all(|c| !c.starts_with("nimbus.v1.rpc.auth.") || *c == auth::VerifyingKeys::subject()),
                "{service}"
            );
        }
    }
}
