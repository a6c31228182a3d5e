//! What `tonle check` asks of Postgres before anything is written.

use tokio_postgres::Client;

use super::connection::{connect, failed};
use super::identifier::Identifier;
use super::layout::Layout;
use super::tables::{ERASED, FIXED, LATER, VALUES};
use super::{Settings, schema, schema_name};
use crate::error::{Error, Kind, Result};
use crate::indicator::Catalog;

/// Oldest major version of Postgres that is supported.
pub const MAJOR_VERSION_MIN: i32 = 13;
/// Newest major version of Postgres that is known to work.
pub const MAJOR_VERSION_MAX: i32 = 18;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Version of the server, as it says it.
    pub server: String,
    /// Database and role.
    pub database: String,
    /// Whether the schema is there already.
    pub schema_exists: bool,
    /// The tables that are written.
    pub tables: Vec<String>,
    /// What is not wrong but should be known.
    pub warnings: Vec<String>,
}

/// Connects and looks whether everything that is needed is allowed; changes nothing.
///
/// # Errors
/// Config for a server that is too old or too new or a standby, Permission for a right that the role lacks,
/// with the statement that grants it.
pub async fn check(settings: &Settings, catalog: &Catalog) -> Result<Check> {
    let name = schema_name(settings)?;
    let layout = Layout::new(&name, catalog)?;
    let client = connect(&settings.address).await?;
    let sql =
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                      pg_is_in_recovery(), current_setting('server_encoding'),
                      current_setting('fsync'), current_setting('full_page_writes')";
    let row =
        client.query_one(sql, &[]).await.map_err(failed("asking Postgres for its version"))?;
    let server: String = row.get(0);
    version(&server, row.get(1))?;
    if row.get(2) {
        return Err(Error::config("this Postgres is a standby, which takes no rows")
            .advise("name the primary server in the database URL"));
    }
    let encoding: String = row.get(3);
    if encoding != "UTF8" {
        return Err(Error::config(format!("the database holds {encoding}, not UTF8"))
            .advise("make one with: createdb --encoding UTF8 --template template0 tonle"));
    }
    let mut warnings = Vec::new();
    for (index, setting) in [(4, "fsync"), (5, "full_page_writes")] {
        if row.get::<_, &str>(index) == "off" {
            warnings.push(format!("{setting} is off: a crash of the server may damage the tables"));
        }
    }
    let schema_exists = schema::exists(&client, &name).await?;
    rights(&client, &name, schema_exists).await?;
    let fixed = FIXED.iter().chain(LATER).chain([&ERASED]);
    let mut tables: Vec<_> = fixed.map(|table| table.name.to_owned()).collect();
    tables.push(VALUES.to_owned());
    tables.extend(layout.extracts.iter().map(|extract| extract.table.name().to_owned()));
    tables.sort();
    Ok(Check { server, database: settings.address.to_string(), schema_exists, tables, warnings })
}

fn version(text: &str, number: i32) -> Result<()> {
    let major = number / 10_000;
    if (MAJOR_VERSION_MIN..=MAJOR_VERSION_MAX).contains(&major) {
        return Ok(());
    }
    Err(Error::config(format!("Postgres {text} is not supported"))
        .advise(format!("versions {MAJOR_VERSION_MIN} to {MAJOR_VERSION_MAX} are")))
}

async fn rights(client: &Client, schema: &Identifier, exists: bool) -> Result<()> {
    let fail = failed("asking Postgres for the rights of the role");
    let sql = "SELECT quote_ident(current_user), quote_ident(current_database()),
                      has_database_privilege(current_database(), 'CREATE'),
                      has_database_privilege(current_database(), 'TEMPORARY')";
    let row = client.query_one(sql, &[]).await.map_err(&fail)?;
    let (role, database): (String, String) = (row.get(0), row.get(1));
    if !exists && !row.get::<_, bool>(2) {
        return Err(lacking(
            "create a schema",
            &format!("GRANT CREATE ON DATABASE {database} TO {role}"),
        ));
    }
    if !row.get::<_, bool>(3) {
        let grant = format!("GRANT TEMPORARY ON DATABASE {database} TO {role}");
        return Err(lacking("make temporary tables", &grant));
    }
    if !exists {
        return Ok(());
    }
    let sql = "SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE')
               FROM pg_namespace WHERE nspname = $1";
    let row = client.query_one(sql, &[&schema.name()]).await.map_err(&fail)?;
    if !row.get::<_, bool>(0) {
        let grant = format!("GRANT CREATE, USAGE ON SCHEMA {schema} TO {role}");
        return Err(lacking("make tables in the schema", &grant));
    }
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relkind IN ('r', 'v')
                 AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1 LIMIT 1";
    if let Some(row) = client.query_opt(sql, &[&schema.name()]).await.map_err(&fail)? {
        let table = Identifier::new(row.get(0))?;
        let grant = format!("ALTER TABLE {schema}.{table} OWNER TO {role}");
        return Err(lacking("change a table of the schema", &grant));
    }
    Ok(())
}

fn lacking(what: &str, grant: &str) -> Error {
    Error::new(Kind::Permission, format!("the role may not {what}"))
        .advise(format!("somebody who may must run: {grant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_13_to_18_are_supported() {
        assert!(version("12.22", 120_022).is_err());
        assert!(version("13.0", 130_000).is_ok());
        assert!(version("18.3", 180_003).is_ok());
        assert!(version("19beta1", 190_000).is_err());
    }
}
