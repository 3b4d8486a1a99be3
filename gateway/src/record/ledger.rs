//! What sessions' status says of their recordings, and whether they are to be kept.

use drawbridge_audit::subject::Session;
use drawbridge_crds::names;
use drawbridge_crds::v1alpha1::{ConsoleSession, MAX_RECORDED, Recorded};
use futures_util::future::BoxFuture;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

/// Owner of `status.recordings`, and of nothing else.
const FIELD_MANAGER: &str = "drawbridge-gateway";

/// Times a status is read again because somebody else wrote it meanwhile.
const TRIES: usize = 8;

/// Where finished recordings are told.
pub trait Ledger: Send + Sync + 'static {
    /// Adds an entry to a session's status. A session that is gone has nothing to be told.
    fn enter<'a>(
        &'a self,
        session: &'a Session,
        entry: &'a Recorded,
    ) -> BoxFuture<'a, Result<(), kube::Error>>;

    /// What a session says of its recordings now.
    fn standing<'a>(&'a self, session: &'a Session)
    -> BoxFuture<'a, Result<Standing, kube::Error>>;
}

/// What a session says of its recordings; nothing, if it is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is labelled to have them kept.
    pub held: bool,
    /// It has not ended: there may be more to come.
    pub open: bool,
}

/// The API server.
#[derive(Clone)]
pub struct ApiServer(pub Client);

impl ApiServer {
    async fn find(&self, session: &Session) -> Result<Option<ConsoleSession>, kube::Error> {
        let api: Api<DeserializeGuard<ConsoleSession>> =
            Api::namespaced(self.0.clone(), &session.namespace);
        let found = api.get_opt(&session.name).await?;
        // One that cannot be read has nobody who reads its status.
        Ok(found
            .and_then(|found| found.0.ok())
            .filter(|found| found.uid().as_deref() == Some(session.uid.as_str())))
    }

    async fn try_enter(&self, session: &Session, entry: &Recorded) -> Result<(), kube::Error> {
        let Some(found) = self.find(session).await? else {
            return Ok(());
        };
        let status = found.status.unwrap_or_default();
        let patch = json!({
            "apiVersion": ConsoleSession::api_version(&()),
            "kind": ConsoleSession::kind(&()),
            "metadata": {
                "name": session.name,
                "uid": session.uid,
                // Another gateway may be adding one of its own.
                "resourceVersion": found.metadata.resource_version,
            },
            "status": {"recordings": with(status.recordings, entry.clone())},
        });
        let api: Api<DeserializeGuard<ConsoleSession>> =
            Api::namespaced(self.0.clone(), &session.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch: Patch<&Value> = Patch::Apply(&patch);
        match api.patch_status(&session.name, &params, &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Ledger for ApiServer {
    fn enter<'a>(
        &'a self,
        session: &'a Session,
        entry: &'a Recorded,
    ) -> BoxFuture<'a, Result<(), kube::Error>> {
        Box::pin(async move {
            let mut tries = TRIES;
            loop {
                tries -= 1;
                match self.try_enter(session, entry).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() && tries > 0 => {}
                    done => return done,
                }
            }
        })
    }

    fn standing<'a>(
        &'a self,
        session: &'a Session,
    ) -> BoxFuture<'a, Result<Standing, kube::Error>> {
        Box::pin(async move {
            let found = self.find(session).await?;
            Ok(found.map_or_else(Standing::default, |found| Standing {
                held: names::legal_hold(&found),
                open: found.status.is_none_or(|status| status.ended_at.is_none()),
            }))
        })
    }
}

/// The newest entries, this one among them.
fn with(mut entries: Vec<Recorded>, entry: Recorded) -> Vec<Recorded> {
    entries.retain(|had| had.id != entry.id);
    entries.push(entry);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.started_at.0));
    entries.truncate(MAX_RECORDED);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, second: i64) -> Recorded {
        serde_json::from_value(json!({
            "id": id, "location": "file:///x", "verdict": "Complete",
            "startedAt": jiff::Timestamp::from_second(second).expect("in range").to_string(),
            "durationSeconds": 1, "bytes": 1, "chainHead": "",
        }))
        .expect("an entry")
    }

    #[test]
    fn the_newest_entries_are_kept_each_once() {
        let mut entries = Vec::new();
        for second in 0..100 {
            entries = with(entries, entry(&second.to_string(), second));
        }
        entries = with(entries, entry("99", 99));
        assert_eq!(entries.len(), MAX_RECORDED);
        assert_eq!(
            (entries[0].id.as_str(), entries[63].id.as_str()),
            ("99", "36")
        );
    }
}
