//! Pages: every item once, in order, whatever the limit.

use nimbus_proto::workloads::{
    Backend, CreateSandbox, CreateService, ListRequest, ListSandboxes, ListServices, Page, Provider,
};

use crate::world::{code, creation, definition, on_both};

fn request(page: Page) -> ListRequest {
    ListRequest {
        tenant: "demo".into(),
        page,
    }
}

on_both! {
    fn every_limit_gives_every_item_once(world, _host, []) {
        world.tenant("demo").await;
        let mut names = Vec::new();
        for index in 0..23_u32 {
            // Names whose order differs between byte and dictionary order.
            let name = format!("{}{}{index}", if index % 2 == 0 { "B" } else { "a" }, if index % 3 == 0 { "-" } else { "." });
            let mut write = definition("demo", &name, Backend::BuiltIn(Provider::LoadBalancer));
            write.labels = Some([("parity".to_owned(), (index % 2).to_string())].into());
            world.ask::<CreateService>(&world.alice, &write).await.unwrap();
            names.push(name);
        }
        names.sort();
        for limit in [1, 2, 5, 22, 23, 24, 1000] {
            for (key, value) in [(None, None), (Some("parity"), None), (Some("parity"), Some("1")), (Some("none"), None)] {
                let expected: Vec<&String> = names
                    .iter()
                    .filter(|name| match (key, value) {
                        (None, _) | (Some("parity"), None) => true,
                        (Some("parity"), Some(_)) => name.starts_with('a'),
                        _ => false,
                    })
                    .collect();
                let (mut seen, mut token) = (Vec::new(), None);
                loop {
                    let page = Page {
                        limit: Some(limit), page_token: token.take(), label_key: key.map(str::to_owned),
                        label_value: value.map(str::to_owned), state: None,
                    };
                    let found = world.ask::<ListServices>(&world.alice, &request(page)).await.unwrap();
                    assert!(found.items.len() <= usize::try_from(limit.min(100)).unwrap());
                    seen.extend(found.items.into_iter().map(|one| one.name));
                    assert_eq!(usize::try_from(found.remaining).unwrap(), expected.len() - seen.len());
                    match found.next_page_token {
                        Some(next) => token = Some(next),
                        None => break,
                    }
                }
                assert_eq!(seen.iter().collect::<Vec<_>>(), expected, "{limit} {key:?} {value:?}");
            }
        }
        let bad = Page { page_token: Some("x".into()), ..Page::default() };
        assert_eq!(code(&world.ask::<ListServices>(&world.alice, &request(bad)).await), "op.invalid_input");
    }

    fn sandboxes_are_found_by_label_and_state(world, _host, []) {
        world.tenant("demo").await;
        let mut ids = Vec::new();
        for index in 0..7 {
            let mut one = creation("demo");
            one.labels.insert("n".into(), (index % 2).to_string());
            ids.push(world.ask::<CreateSandbox>(&world.alice, &one).await.unwrap().id);
        }
        ids.sort();
        let find = |page| async { world.ask::<ListSandboxes>(&world.alice, &request(page)).await };
        let first = find(Page { limit: Some(3), ..Page::default() }).await.unwrap();
        assert_eq!((first.items.len(), first.remaining), (3, 4));
        let rest = find(Page { limit: Some(100), page_token: first.next_page_token.clone(), ..Page::default() }).await.unwrap();
        let seen: Vec<_> = first.items.iter().chain(&rest.items).map(|one| one.id.clone()).collect();
        assert_eq!((seen, rest.remaining, rest.next_page_token), (ids, 0, None));
        let odd = Page { label_key: Some("n".into()), label_value: Some("1".into()), state: Some("ready".into()), ..Page::default() };
        assert_eq!(find(odd.clone()).await.unwrap().items.len(), 3);
        assert_eq!(find(Page { state: Some("failed".into()), ..Page::default() }).await.unwrap().items.len(), 0);
        for wrong in [
            Page { state: Some("gone".into()), ..Page::default() },
            Page { label_value: Some("1".into()), ..Page::default() },
            Page { page_token: first.next_page_token, ..odd },
        ] {
            assert_eq!(code(&find(wrong).await), "op.invalid_input");
        }
    }
}
