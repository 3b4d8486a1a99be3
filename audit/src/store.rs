//! Where recordings lie: a directory, S3, Google Cloud Storage or Azure Blob Storage.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreExt as _, RetryConfig};
use url::Url;

/// How long one request may take. A segment has about 1 MiB.
const REQUEST: Duration = Duration::from_secs(30);
/// How long a request is tried again before the caller hears of it. Callers that must not give up ask again.
const RETRIES: Duration = Duration::from_secs(20);

/// A store of one vendor, its settings read from pairs of name and value.
macro_rules! configured {
    ($builder:ident, $key:ident, $bucket:expr, $settings:expr) => {{
        let mut builder = $builder::new().with_url($bucket.as_str());
        let timeout = format!("{} seconds", REQUEST.as_secs());
        builder = builder.with_config($key::Client(ClientConfigKey::Timeout), timeout);
        for (name, value) in $settings {
            if let Ok(key) = name.to_ascii_lowercase().parse::<$key>() {
                builder = builder.with_config(key, value);
            }
        }
        let retry = RetryConfig {
            max_retries: 3,
            retry_timeout: RETRIES,
            ..RetryConfig::default()
        };
        Arc::new(builder.with_retry(retry).build()?)
    }};
}

/// A place for files, with directories in their names: `recordings/shop/6f1c/…`.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
}

/// A file in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name, below the store's own prefix.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

/// Why a store does not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is none, or of no known kind.
    #[error(
        "{url:?} is no place for recordings; write file:///DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Url {
        /// What was given.
        url: String,
    },
    /// The directory cannot be used.
    #[error("failed to use the directory {path}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings in the environment do not fit, or the store refused or failed.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// The name is none that a store takes.
    #[error("{0:?} cannot be the name of a file in a store")]
    Key(String),
    /// The file is longer than the caller has room for.
    #[error("{key} has {bytes} bytes, more than the {most} expected")]
    TooLong {
        /// Which.
        key: String,
        /// Its length.
        bytes: u64,
        /// What was expected at most.
        most: u64,
    },
}

impl Error {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }
}

impl Store {
    /// The store at a URL: `file:///DIRECTORY` (made if it is not there), `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`. Credentials, region and endpoint come from the environment variables the vendors' own
    /// tools read: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    ///
    /// # Errors
    /// A URL that is none of these, a directory that cannot be made, settings that do not fit. A bucket is not asked for.
    pub fn open(url: &str) -> Result<Self, Error> {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let vendors = ["AWS_", "GOOGLE_", "AZURE_"];
        let settings = std::env::vars_os()
            .filter_map(text)
            .filter(|(name, _)| vendors.iter().any(|vendor| name.starts_with(vendor)));
        Self::configured(url, settings)
    }

    /// The same, with settings from elsewhere, under the names of those variables. Others are passed over.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn configured(
        url: &str,
        settings: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let wrong = || Error::Url {
            url: url.to_owned(),
        };
        let parsed = Url::parse(url).map_err(|_| wrong())?;
        let bucket = format!("{}://{}", parsed.scheme(), parsed.authority());
        let inner: Arc<dyn ObjectStore> = match parsed.scheme() {
            "file" => return Self::directory(&parsed.to_file_path().map_err(|()| wrong())?),
            "s3" => configured!(AmazonS3Builder, AmazonS3ConfigKey, bucket, settings),
            "gs" => configured!(GoogleCloudStorageBuilder, GoogleConfigKey, bucket, settings),
            "az" => configured!(MicrosoftAzureBuilder, AzureConfigKey, bucket, settings),
            _ => return Err(wrong()),
        };
        let prefix = parsed.path().trim_matches('/');
        let prefix = Path::parse(prefix).map_err(object_store::Error::from)?;
        let url = match prefix.as_ref() {
            "" => bucket,
            prefix => format!("{bucket}/{prefix}"),
        };
        Ok(Self { inner, prefix, url })
    }

    /// A directory, made if it is not there. What is written there is on the disk before it counts as written.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn directory(path: &std::path::Path) -> Result<Self, Error> {
        let failed = |source| Error::Directory {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let path = std::fs::canonicalize(path).map_err(failed)?;
        let inner = LocalFileSystem::new_with_prefix(&path)?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Self {
            inner: Arc::new(inner),
            prefix: Path::default(),
            url: format!("file://{}", path.display()),
        })
    }

    /// Any other store, under a name for people.
    #[must_use]
    pub fn other(inner: Arc<dyn ObjectStore>, url: &str) -> Self {
        Self {
            inner,
            prefix: Path::default(),
            url: url.to_owned(),
        }
    }

    /// Where it is, without anything secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where one file, or directory, of it is.
    #[must_use]
    pub fn location(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    /// Writes a file, whole or not at all, over what was there.
    ///
    /// # Errors
    /// When the store did not take it.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        let path = self.path(key)?;
        self.inner.put(&path, bytes.into()).await?;
        Ok(())
    }

    /// A file of `most` bytes at most.
    ///
    /// # Errors
    /// When there is none, it is longer, or the store fails.
    pub async fn get(&self, key: &str, most: u64) -> Result<Bytes, Error> {
        let found = self.inner.get(&self.path(key)?).await?;
        let bytes = found.meta.size;
        if bytes > most {
            return Err(Error::TooLong {
                key: key.to_owned(),
                bytes,
                most,
            });
        }
        Ok(found.bytes().await?)
    }

    /// Every file whose name begins with the directory `under`, in no certain order.
    pub fn list(&self, under: &str) -> BoxStream<'static, Result<Object, Error>> {
        let prefix = match self.path(under) {
            Ok(prefix) => prefix,
            Err(error) => return futures_util::stream::once(async { Err(error) }).boxed(),
        };
        let own = self.prefix.clone();
        self.inner
            .list(Some(&prefix))
            .map_err(Error::from)
            .try_filter_map(move |meta| {
                let key = meta.location.prefix_match(&own).map(|parts| {
                    parts
                        .map(|part| part.as_ref().to_owned())
                        .collect::<Vec<_>>()
                        .join("/")
                });
                let modified = Timestamp::from_second(meta.last_modified.timestamp());
                let object = key.map(|key| Object {
                    key,
                    bytes: meta.size,
                    modified: modified.unwrap_or_default(),
                });
                async move { Ok(object) }
            })
            .boxed()
    }

    /// Deletes a file; one that is not there is deleted already.
    ///
    /// # Errors
    /// When the store refuses or fails.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.inner.delete(&self.path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn path(&self, key: &str) -> Result<Path, Error> {
        let wrong = |_| Error::Key(key.to_owned());
        let path = Path::parse(key).map_err(wrong)?;
        Ok(self.prefix.parts().chain(path.parts()).collect())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.url).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_keeps_what_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/new/place", dir.path().display());
        keeps(&Store::open(&url).unwrap()).await;
        assert!(
            !dir.path().join("new/place/recordings/a").exists(),
            "no empty directories stay"
        );
    }

    #[tokio::test]
    async fn memory_keeps_what_it_is_given() {
        let memory = Arc::new(object_store::memory::InMemory::new());
        keeps(&Store::other(memory, "memory://")).await;
    }

    async fn keeps(store: &Store) {
        let key = "recordings/a/b/00000000.seg";
        assert!(store.get(key, 10).await.unwrap_err().is_not_found());
        store.put(key, Bytes::from_static(b"one")).await.unwrap();
        store.put(key, Bytes::from_static(b"two")).await.unwrap();
        store.put("recordings/c/x", Bytes::new()).await.unwrap();
        assert_eq!(store.get(key, 3).await.unwrap(), "two");
        assert!(matches!(
            store.get(key, 2).await,
            Err(Error::TooLong { bytes: 3, .. })
        ));
        let all: Vec<_> = store.list("recordings/a").try_collect().await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].key.as_str(), all[0].bytes), (key, 3));
        assert!(all[0].modified > Timestamp::UNIX_EPOCH);
        store.delete(key).await.unwrap();
        store.delete(key).await.unwrap();
        let all: Vec<_> = store.list("recordings").try_collect().await.unwrap();
        assert_eq!(all.len(), 1);
        assert!(matches!(
            store.put("../x", Bytes::new()).await,
            Err(Error::Key(_))
        ));
    }

    #[test]
    fn a_url_that_is_no_store_is_refused_with_what_to_write() {
        for url in [
            "/var/lib",
            "ftp://host/x",
            "file://host/x",
            "",
            "https://host/bucket",
        ] {
            let error = Store::open(url).unwrap_err().to_string();
            assert!(error.contains("s3://BUCKET/PREFIX"), "{error}");
        }
    }

    #[test]
    fn buckets_are_opened_with_their_prefix() {
        for (url, told) in [
            ("gs://bucket/some/where/", "gs://bucket/some/where"),
            ("s3://bucket", "s3://bucket"),
        ] {
            assert_eq!(Store::open(url).unwrap().url(), told);
        }
    }
}
