//! A real Postgres for tests: one cluster for the whole test process, one fresh database for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tonle::postgres::{PrivatePostgres, Settings};

/// The cluster all tests share. It is never dropped; its watchdog ends it with the process.
static SHARED: OnceLock<PrivatePostgres> = OnceLock::new();

/// How many databases were made in it.
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// An empty database in a cluster of this test process.
pub(crate) struct Database {
    /// Where to connect.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
}

impl Database {
    /// Makes one; the first call of a process starts the cluster.
    pub(crate) fn fresh() -> Self {
        let cluster = SHARED.get_or_init(private);
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&name).expect("the shared cluster runs");
        Self { url: cluster.url_of(&name), name }
    }

    /// What `psql` prints for a query: rows as lines, columns parted by `|`.
    pub(crate) fn query(&self, sql: &str) -> String {
        let output = self.client("psql").args(["-XAtqc", sql]).output().expect("psql runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {complaint}");
        String::from_utf8(output.stdout).expect("psql prints UTF-8").trim_end().to_owned()
    }

    /// Everything in the database as SQL text, for tests that look for what must not be there.
    pub(crate) fn dump(&self) -> String {
        let output = self.client("pg_dump").arg("--inserts").output().expect("pg_dump runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("pg_dump prints UTF-8")
    }

    /// A client program of Postgres, set up to reach this database.
    pub(crate) fn client(&self, program: &str) -> std::process::Command {
        SHARED.get().expect("a database was made in it").client(program, &self.name)
    }
}

/// A cluster of the test's own, for tests that stop or kill the server.
pub(crate) fn private() -> PrivatePostgres {
    let settings = Settings { fsync: false, ..Settings::default() };
    PrivatePostgres::start(&settings).expect("a private Postgres starts")
}

/// The same, for tests that kill the server and count on every commit.
pub(crate) fn durable() -> PrivatePostgres {
    PrivatePostgres::start(&Settings::default()).expect("a private Postgres starts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_gets_its_own_empty_database() {
        let (one, other) = (Database::fresh(), Database::fresh());
        one.query("CREATE TABLE planted AS SELECT 'a heron' AS seen");
        assert!(one.dump().contains("a heron"));
        assert!(!other.dump().contains("a heron"));
        assert_ne!(one.url, other.url);
    }

    #[tokio::test]
    async fn the_url_is_one_the_driver_reads() {
        let database = Database::fresh();
        let connected = tokio_postgres::connect(&database.url, tokio_postgres::NoTls).await;
        let (client, connection) = connected.expect("the address and the password are right");
        let connection = tokio::spawn(connection);
        let row = client.query_one("SELECT current_database()::text", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), database.name);
        drop(client);
        connection.await.unwrap().unwrap();
    }
}
