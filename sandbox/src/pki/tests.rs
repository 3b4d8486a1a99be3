//! Whom certificates name, and who is let in with them.

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_client_certificate_names_its_user_and_groups() {
    let pki = Pki::new().unwrap();
    for groups in [&[][..], &["system:masters"]] {
        let issued = pki.client("alice@example.com", groups).unwrap();
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        let named = Identity::user("alice@example.com", groups);
        assert_eq!(subject(&der(&issued.certificate)), Some(named));
    }
    assert!(pki.client("x", &["a", "b"]).is_err());
    assert_eq!(subject(b"no certificate"), None);
}

/// What the server sees of a client that shows `issued` and asks for `name`.
async fn handshake(pki: &Pki, issued: Option<Issued>, name: &str) -> std::io::Result<bool> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&pki.authority)).unwrap();
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => builder
            .with_client_auth_cert(
                vec![der(&issued.certificate)],
                PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let (here, there) = tokio::io::duplex(65_536);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let (client, server) = tokio::join!(
        connector.connect(name, here),
        TlsAcceptor::from(pki.server_config().unwrap()).accept(there)
    );
    client?;
    Ok(server?.get_ref().1.peer_certificates().is_some())
}

#[tokio::test]
async fn clients_come_in_without_a_certificate_or_with_one_of_this_authority_alone() {
    let pki = Pki::new().unwrap();
    for name in NAMES {
        assert!(!handshake(&pki, None, name).await.unwrap(), "{name}");
    }
    let mine = pki.client("alice@example.com", &[]).unwrap();
    assert!(handshake(&pki, Some(mine), "localhost").await.unwrap());
    let foreign = Pki::new().unwrap().client("x", &["system:masters"]);
    assert!(
        handshake(&pki, foreign.ok(), "localhost").await.is_err(),
        "another authority's"
    );
    let server = pki.server(&["localhost"]).ok();
    assert!(
        handshake(&pki, server, "localhost").await.is_err(),
        "a server's is no client's"
    );
    assert!(handshake(&pki, None, "example.com").await.is_err());
}
