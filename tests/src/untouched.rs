//! The proof that a refusal cost the cluster nothing.

use anyhow::{Result, ensure};

use crate::audit::Mark;
use crate::cluster::Needs;
use crate::test::Test;

/// Proves that nothing was opened towards the cluster since it was made. The gateway counts its dials for everybody, so the
/// test must be alone with it ([`crate::run_alone`]).
pub struct Nothing<'a> {
    test: &'a Test,
    dials: f64,
    mark: Option<Mark>,
}

impl<'a> Nothing<'a> {
    /// From now on.
    ///
    /// # Errors
    /// When the gateway or the audit log cannot be read.
    pub async fn yet(test: &'a Test) -> Result<Self> {
        let mark = if test.cluster.offers(Needs::AuditLog)? {
            Some(test.cluster.audit()?.mark()?)
        } else {
            None
        };
        Ok(Self {
            test,
            dials: test.gateway().dials().await?,
            mark,
        })
    }

    /// By the gateway's own count, and by what the API server saw.
    ///
    /// # Errors
    /// When something did.
    pub async fn reached_the_cluster(self) -> Result<()> {
        let dials = self.test.gateway().dials().await?;
        ensure!(
            (dials - self.dials).abs() < 0.5,
            "the gateway dialled {} times",
            dials - self.dials
        );
        if let Some(mark) = self.mark {
            let seen = self
                .test
                .cluster
                .audit()?
                .since(mark, |seen| seen.is_stream_in(&self.test.namespace))?;
            ensure!(seen.is_empty(), "the API server saw {seen:?}");
        }
        Ok(())
    }
}
