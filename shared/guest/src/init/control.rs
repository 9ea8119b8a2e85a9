//! A control connection.

use std::path::Path;
use std::rc::Rc;

use nimbus_guest::frame::{self, FrameError, FrameReader};
use nimbus_guest::protocol::{Answer, GuestFault, HelloReply, Opened, Reply, Request};
use tokio::net::UnixStream;

use super::world::World;
use super::{fault, files, memory, ports};

pub(crate) async fn serve(mut stream: UnixStream, world: &Rc<World>) -> Result<(), FrameError> {
    frame::write(&mut stream, &HelloReply::Ok(Opened::Control)).await?;
    let (from, mut to) = stream.split();
    let mut requests = FrameReader::new(from);
    while let Some(request) = requests.next::<Request>().await? {
        let last = matches!(request, Request::Shutdown);
        let answer: Answer = answer(request, world).await;
        frame::write(&mut to, &answer).await?;
        if last {
            world.shutdown.notify_one();
        }
    }
    Ok(())
}

async fn answer(request: Request, world: &Rc<World>) -> Answer {
    Ok(match request {
        Request::Ping | Request::Shutdown => Reply::Done,
        Request::Claim(claim) => Reply::Claimed(world.claim(claim)?),
        Request::Commands => Reply::Commands(world.commands.list()),
        Request::Signal { command, signal } => {
            world.commands.get(&command)?.signal(signal)?;
            Reply::Done
        }
        Request::Forget { command } => {
            world.commands.forget(&command)?;
            Reply::Done
        }
        Request::Stat { path, follow } => Reply::Entry(apart(move || files::stat(&path, follow)).await?),
        Request::List { path, after, limit } => {
            let (entries, more) = apart(move || files::list(&path, after.as_deref(), limit)).await?;
            Reply::Entries { entries, more }
        }
        Request::Mkdir { path, mode, parents } => {
            Reply::Entry(apart(move || files::mkdir(&path, mode, parents)).await?)
        }
        Request::Move { from, to, replace } => {
            Reply::Entry(apart(move || files::rename(&from, &to, replace)).await?)
        }
        Request::Remove { path, recursive } => {
            apart(move || files::remove(&path, recursive)).await?;
            Reply::Done
        }
        Request::Ports => Reply::Ports(ports::listening(&world.egress.own_ports())),
        Request::Stats => Reply::Stats(world.stats()),
        Request::MemoryKills => Reply::MemoryKills(memory::kills(Path::new("/"))),
    })
}

/// Does what may wait for a disk on a thread of its own.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GuestFault> + Send + 'static,
) -> Result<T, GuestFault> {
    tokio::task::spawn_blocking(work).await.map_err(fault::lost)?
}
