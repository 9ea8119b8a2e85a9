//! The rounds that every saga has to stand, and taking back that gets stuck; with a real address pool
//! and a simulated cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nimbus_bus::Identity;
use nimbus_errors::{Code, Fault};
use nimbus_model::{MachineId, OperationId};
use nimbus_proto::machine::{MachineStatus, OperationState, PowerAction, PowerRequest};
use nimbus_pve_sim::FaultMode;
use nimbus_saga::testing::{
    World as Round, acts_and_undoes_twice, fails_at_each_step, stands_everything, works,
};
use nimbus_saga::{Outcome, Outputs, Policy, Saga, StepError, UndoError, drive};
use nimbus_store::Database;
use nimbus_store::testing::{on_both, on_postgres, on_sqlite};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::delete::Delete;
use super::power::Power;
use super::provision::{Provision, Step};
use super::stuck;
use crate::error::MachineError;
use crate::hypervisor::Vm;
use crate::machine::{MachineRow, store as machines};
use crate::operation::store as operations;
use crate::service::Provisioner;
use crate::world::{World, config, create_request};

/// A provisioner that nobody drives, and everything around it. Shared by the rounds of a test.
struct Env {
    world: World,
    /// Sagas borrow it, and the rounds want sagas that borrow nothing of theirs.
    provisioner: &'static Provisioner,
    owner: Identity,
    names: AtomicU32,
}

impl Env {
    async fn start(db: &Database) -> Arc<Self> {
        let world = World::start(db).await;
        world.gpu.pair("a-model");
        let ctx = world.ctx("rounds").await;
        let provisioner = crate::assemble(&ctx, config(&[]), world.access()).await.unwrap();
        Arc::new(Self {
            owner: world.admin.identity.clone(),
            world,
            provisioner: Box::leak(Box::new(provisioner)),
            names: AtomicU32::new(0),
        })
    }

    fn vm(&self, machine: MachineId) -> Vm<'static> {
        let inner = self.provisioner.inner();
        Vm::new(self.provisioner.client().unwrap(), &inner.config, machine)
    }

    fn provision(&self, machine: MachineId) -> Provision<'static> {
        Provision {
            provisioner: self.provisioner,
            machine,
            vm: self.vm(machine),
            renewing: Mutex::new(true),
        }
    }

    fn delete(&self, machine: MachineId) -> Delete<'static> {
        Delete {
            provisioner: self.provisioner,
            machine,
            vm: self.vm(machine),
        }
    }

    /// An order: the row and the operation, nothing done yet.
    async fn order(&self) -> (MachineId, OperationId) {
        let name = format!("round-{}", self.names.fetch_add(1, Ordering::Relaxed));
        let request = create_request(&name);
        let ordered = self.provisioner.create(&self.owner, None, request).await.unwrap();
        (ordered.machine, ordered.id)
    }

    async fn drive<S: Saga>(&self, saga: &S, operation: OperationId) -> Outcome {
        let sagas = &self.provisioner.inner().sagas;
        let claimed = sagas
            .claim(&operation.to_string(), "rounds")
            .await
            .unwrap()
            .unwrap();
        Box::pin(drive(saga, sagas, claimed, &CancellationToken::new()))
            .await
            .unwrap()
    }

    async fn make(&self) -> MachineId {
        let (machine, operation) = self.order().await;
        let outcome = self.drive(&self.provision(machine), operation).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        machine
    }

    /// Deletes a machine as its owner would.
    async fn unmake(&self, machine: MachineId) {
        let ordered = self.provisioner.delete(&self.owner, None, machine).await.unwrap();
        let outcome = self.drive(&self.delete(machine), ordered.id).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        self.assert_gone(machine).await;
    }

    async fn row(&self, machine: MachineId) -> Option<MachineRow> {
        machines::find(&self.provisioner.inner().store, machine)
            .await
            .unwrap()
    }

    /// Takes away the row of a saga that nobody observed.
    async fn forget(&self, machine: MachineId) {
        let mut tx = self.provisioner.inner().store.begin().await.unwrap();
        machines::remove(&mut tx, machine).await.unwrap();
        tx.commit().await.unwrap();
    }

    fn vms(&self, machine: MachineId) -> Vec<Value> {
        let marked = format!("machine={machine}");
        let mut made = self.world.made();
        made.retain(|vm| {
            vm["config"]["description"]
                .as_str()
                .is_some_and(|text| text.contains(&marked))
        });
        made
    }

    async fn address(&self, machine: MachineId) -> Option<nimbus_proto::ippool::Address> {
        let held = self.world.addresses().await;
        held.into_iter().find(|address| address.machine == Some(machine))
    }

    async fn assert_gone(&self, machine: MachineId) {
        assert_eq!(self.vms(machine), Vec::<Value>::new());
        assert_eq!(self.address(machine).await, None);
        assert_eq!(self.world.gpu.token(machine), None);
        assert!(self.row(machine).await.is_none());
    }
}

struct Provisioning(Arc<Env>, MachineId);

#[async_trait]
impl Round for Provisioning {
    type Saga = Provision<'static>;

    fn saga(&self) -> Self::Saga {
        self.0.provision(self.1)
    }

    async fn assert_done(&self, _outputs: &Outputs) {
        let (env, machine) = (&self.0, self.1);
        let vms = env.vms(machine);
        assert_eq!((vms.len(), env.world.made().len()), (1, 1), "{vms:?}");
        assert_eq!(vms[0]["status"], "running");
        let row = env.row(machine).await.unwrap();
        assert_eq!(vms[0]["vmid"], row.vmid.unwrap());
        // However often it was told, what it was told last is good.
        let (_, token) = env.world.gpu.token(machine).unwrap();
        let told = env.world.told(u32::try_from(row.vmid.unwrap()).unwrap());
        assert!(told.last().unwrap().contains(&token));
        let ip = row.ip.unwrap();
        let told = vms[0]["config"]["ipconfig0"].as_str().unwrap();
        assert!(told.starts_with(&format!("ip={ip}/")), "{told} is not {ip}");
        let address = env.address(machine).await.unwrap();
        assert_eq!(
            (address.ip.to_string(), address.vmid.map(i64::from)),
            (ip, row.vmid)
        );
        let delete = env.delete(machine);
        for step in <super::delete::Step as strum::VariantArray>::VARIANTS {
            delete.act(*step, &Outputs::default()).await.unwrap();
        }
        env.forget(machine).await;
        env.assert_gone(machine).await;
    }

    async fn assert_nothing_left(&self) {
        let (env, machine) = (&self.0, self.1);
        env.forget(machine).await;
        env.assert_gone(machine).await;
        assert_eq!(env.world.made(), Vec::<Value>::new());
    }
}

struct Deleting(Arc<Env>, MachineId);

#[async_trait]
impl Round for Deleting {
    type Saga = Delete<'static>;

    fn saga(&self) -> Self::Saga {
        self.0.delete(self.1)
    }

    async fn assert_done(&self, _outputs: &Outputs) {
        self.0.forget(self.1).await;
        self.0.assert_gone(self.1).await;
    }

    /// A deletion is not taken back: its owner orders it again.
    async fn assert_nothing_left(&self) {
        self.0.unmake(self.1).await;
    }
}

struct Stopping(Arc<Env>, MachineId);

#[async_trait]
impl Round for Stopping {
    type Saga = Power<'static>;

    fn saga(&self) -> Self::Saga {
        Power {
            provisioner: self.0.provisioner,
            machine: self.1,
            action: PowerAction::Stop,
            vm: self.0.vm(self.1),
        }
    }

    async fn assert_done(&self, _outputs: &Outputs) {
        assert_eq!(self.0.vms(self.1)[0]["status"], "stopped");
    }

    async fn assert_nothing_left(&self) {
        assert_eq!(self.0.vms(self.1).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provision_stands_every_round() {
    on_sqlite(|db| async move {
        let env = Env::start(&db.db).await;
        stands_everything(|| async { Provisioning(Arc::clone(&env), env.order().await.0) }).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provision_stands_failures_on_postgres() {
    on_postgres(|db| async move {
        let env = Env::start(&db.db).await;
        let make = || async { Provisioning(Arc::clone(&env), env.order().await.0) };
        works(make).await;
        fails_at_each_step(make).await;
        acts_and_undoes_twice(make).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_stands_every_round() {
    on_sqlite(|db| async move {
        let env = Env::start(&db.db).await;
        stands_everything(|| async { Deleting(Arc::clone(&env), env.make().await) }).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_stands_every_round() {
    on_sqlite(|db| async move {
        let env = Env::start(&db.db).await;
        let machine = env.make().await;
        stands_everything(|| async {
            let place = super::placed(&env.row(machine).await.unwrap()).unwrap();
            env.vm(machine).power(&place, PowerAction::Start).await.unwrap();
            Stopping(Arc::clone(&env), machine)
        })
        .await;
        env.unmake(machine).await;
    })
    .await;
}

/// A provision that fails when its VM runs, and does not try long to take it back.
struct Doomed(Provision<'static>);

#[async_trait]
impl Saga for Doomed {
    const NAME: &'static str = <Provision<'static> as Saga>::NAME;
    type Step = Step;

    async fn act(&self, step: Step, done: &Outputs) -> Result<Value, StepError> {
        if step == Step::WaitGuestAgent {
            return Err(Fault::new(Code::MachineProxmoxRejected, "the test says no").into());
        }
        self.0.act(step, done).await
    }

    async fn undo(&self, step: Step, done: &Outputs) -> Result<(), UndoError> {
        self.0.undo(step, done).await
    }

    fn policy(&self) -> Policy {
        Policy {
            undo_attempts: 2,
            first_wait: Duration::from_millis(1),
            ..Policy::default()
        }
    }
}

impl Env {
    /// A machine whose VM runs and cannot be destroyed.
    async fn stuck(&self) -> (MachineId, OperationId) {
        let (machine, operation) = self.order().await;
        let mut fault = nimbus_pve_sim::Fault::once(
            "DELETE /nodes/{node}/qemu/{vmid}",
            FaultMode::Fail {
                status: 500,
                message: "the storage is on fire".into(),
            },
        );
        fault.count = 0;
        self.world.sim.inject(fault);
        let outcome = self.drive(&Doomed(self.provision(machine)), operation).await;
        assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
        (machine, operation)
    }

    async fn reopened(&self, after: Duration) -> usize {
        self.world.jump.forward(after);
        stuck::reopen(self.provisioner).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taking_back_that_got_stuck_is_taken_up_again() {
    on_both(|db| async move { Box::pin(again_and_again(Env::start(&db.db).await)).await }).await;
}

async fn again_and_again(env: Arc<Env>) {
    let (machine, operation) = env.stuck().await;
    let told = env.provisioner.operation(&env.owner, operation).await.unwrap();
    let fault = told.fault.clone().unwrap();
    assert_eq!(told.state, OperationState::Failed);
    assert!(fault.is(Code::MachineStuck), "{fault}");
    assert!(
        fault.message.contains("the test says no") && fault.message.contains("on fire"),
        "{fault}"
    );
    let row = env.row(machine).await.unwrap();
    assert_eq!(row.operation, Some(operation));
    let view = row.view().unwrap();
    assert_eq!((view.status, view.operation), (MachineStatus::Failed, None));
    let start = PowerRequest {
        machine,
        action: PowerAction::Start,
    };
    let refused = env.provisioner.power(&env.owner, None, start).await.unwrap_err();
    assert!(
        matches!(
            refused,
            MachineError::Busy { .. } | MachineError::WrongState { .. }
        ),
        "{refused:?}"
    );
    // A reconcile leaves it alone, whatever it sees.
    assert_eq!(crate::reconcile::run(env.provisioner).await.unwrap().no_ops, 0);

    assert_eq!(env.reopened(Duration::ZERO).await, 0);
    assert_eq!(env.reopened(Duration::from_secs(31)).await, 1);
    let busy = env
        .provisioner
        .delete(&env.owner, None, machine)
        .await
        .unwrap_err();
    assert!(matches!(busy, MachineError::Busy { .. }), "{busy:?}");
    let outcome = env.drive(&Doomed(env.provision(machine)), operation).await;
    assert!(matches!(outcome, Outcome::Stuck { .. }), "{outcome:?}");
    // For its owner it has ended once, with the same reason.
    let again = env.provisioner.operation(&env.owner, operation).await.unwrap();
    assert_eq!(
        (
            again.state,
            again.finished_at,
            again.fault.as_ref().map(|fault| &fault.message)
        ),
        (OperationState::Failed, told.finished_at, Some(&fault.message))
    );

    assert_eq!(
        env.reopened(Duration::from_secs(31)).await,
        0,
        "the pause has doubled"
    );
    assert_eq!(env.reopened(Duration::from_secs(30)).await, 1);
    env.world.sim.clear_faults();
    let outcome = env.drive(&env.provision(machine), operation).await;
    assert!(matches!(outcome, Outcome::Undone(_)), "{outcome:?}");
    env.assert_gone(machine).await;
    let ended = env.provisioner.operation(&env.owner, operation).await.unwrap();
    assert_eq!(ended.fault.unwrap().message, "the test says no");
    let used = machines::slots_used(&env.provisioner.inner().store, env.owner.user)
        .await
        .unwrap();
    assert_eq!(used, 0);
    assert_eq!(env.reopened(Duration::from_secs(3600)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_may_delete_what_could_not_be_taken_back() {
    on_both(|db| async move {
        let env = Env::start(&db.db).await;
        let (machine, operation) = env.stuck().await;
        let ordered = env.provisioner.delete(&env.owner, None, machine).await.unwrap();
        assert_ne!(ordered.id, operation);
        assert_eq!(
            env.reopened(Duration::from_secs(3600)).await,
            0,
            "two must not work on one machine"
        );
        // Not even if it was listed before the order came.
        let sagas = &env.provisioner.inner().sagas;
        assert!(sagas.reopen(&operation.to_string()).await.is_err());
        env.world.sim.clear_faults();
        let outcome = env.drive(&env.delete(machine), ordered.id).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        env.assert_gone(machine).await;
        assert_eq!(env.reopened(Duration::from_secs(3600)).await, 0);
        let row = operations::find(&env.provisioner.inner().store, operation)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.private_key, None, "what it opened never came to be");
    })
    .await;
}
