use std::net::Ipv4Addr;

use anyhow::Result;
use nimbus_guest::protocol::{Claim, EgressTarget, Forward};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Init, LONG, refusal};

/// A loopback address that no other test has.
fn own_addr(init: &Init) -> Ipv4Addr {
    let [_, _, c, d] = init.pid().to_be_bytes();
    Ipv4Addr::new(127, 77, c, d)
}

#[tokio::test]
async fn a_port_inside_is_reached_both_ways_and_its_ends_are_passed_on() -> Result<()> {
    let init = Init::start().await?;
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let port = server.local_addr()?.port();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await?;
        // The server speaks first; nothing of it may be lost with the reply.
        stream.write_all(b"hello ").await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        stream.write_all(&all).await?;
        anyhow::Ok(())
    });
    let mut stream = init.guest.connect_port(port).await?;
    let large = vec![5; 1 << 20];
    stream.write_all(&large).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await??;
    assert!(answer.starts_with(b"hello ") && answer[6..] == large);
    echo.await??;
    assert_eq!(
        refusal(init.guest.connect_port(port).await),
        "service.unavailable"
    );
    Ok(())
}

#[tokio::test]
async fn connections_from_inside_are_handed_to_whoever_waits() -> Result<()> {
    let init = Init::start().await?;
    let addr = own_addr(&init);
    let claim = Claim {
        forwards: vec![Forward {
            name: "database".into(),
            addr,
            port: 5432,
        }],
        ..Claim::default()
    };
    init.control().await?.claim(claim).await?;
    // One that gave up waiting is passed over.
    drop(init.guest.connect().await?);
    let gone = init.guest.accept_egress();
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(20), gone)
            .await
            .is_err()
    );

    // More inside than wait outside: the rest stay in the queue.
    let mut inside = Vec::new();
    for number in 0..10_u8 {
        let mut stream = TcpStream::connect((addr, 5432)).await?;
        stream.write_all(&[number]).await?;
        inside.push(stream);
    }
    for (number, mut near) in inside.into_iter().enumerate() {
        let (egress, mut far) = tokio::time::timeout(LONG, init.guest.accept_egress()).await??;
        assert_eq!(egress.to, EgressTarget::Forward("database".into()));
        assert_eq!(egress.source_port, near.local_addr()?.port());
        assert_eq!(usize::from(far.read_u8().await?), number);
        far.write_all(b"answer").await?;
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).await?;
        assert_eq!(answer, "answer");
    }
    Ok(())
}

#[tokio::test]
async fn the_proxy_is_listened_for_and_hosts_are_written_when_asked() -> Result<()> {
    let hosts = camino_tempfile::NamedUtf8TempFile::new()?;
    std::fs::write(hosts.path(), "127.0.0.1 localhost\n")?;
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let args = [
        format!("--hosts={}", hosts.path()),
        format!("--proxy-port={port}"),
    ];
    let init = Init::start_with(&args).await?;
    let mut control = init.control().await?;
    let claim = Claim {
        proxy: true,
        hosts: vec![(own_addr(&init).into(), "db.example".into())],
        ..Claim::default()
    };
    assert!(control.claim(claim).await?.hosts_written);
    let text = std::fs::read_to_string(hosts.path())?;
    assert_eq!(
        text,
        format!("127.0.0.1 localhost\n{}\tdb.example\n", own_addr(&init))
    );
    let _near = TcpStream::connect(("127.0.0.1", port)).await?;
    let (egress, _far) = init.guest.accept_egress().await?;
    assert_eq!(egress.to, EgressTarget::Proxy);

    let server = TcpListener::bind((own_addr(&init), 0)).await?;
    let ports = control.ports().await?;
    assert!(
        ports
            .iter()
            .any(|found| found.port == server.local_addr().unwrap().port())
    );
    assert!(
        !ports.iter().any(|found| found.port == port),
        "the init's own port is shown"
    );
    Ok(())
}

#[tokio::test]
async fn a_claim_whose_address_cannot_be_had_leaves_nothing() -> Result<()> {
    let init = Init::start().await?;
    let mut control = init.control().await?;
    let addr = own_addr(&init);
    let taken = TcpListener::bind((addr, 6000)).await?;
    let forward = |addr| Claim {
        forwards: vec![Forward {
            name: "x".into(),
            addr,
            port: 6000,
        }],
        ..Claim::default()
    };
    assert_eq!(refusal(control.claim(forward(addr)).await), "op.conflict");
    let public = forward(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(refusal(control.claim(public).await), "op.invalid_input");
    drop(taken);
    control.claim(forward(addr)).await?;
    Ok(())
}
