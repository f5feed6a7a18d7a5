// One connection for each process. Where LITEFS_CANDIDATE is false LiteFS has a copy that only the primary may change.
import Database from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { migrate } from 'drizzle-orm/better-sqlite3/migrator';
import * as schema from './schema.js';

export const replica = process.env.LITEFS_CANDIDATE === 'false';

function open() {
  // Read-only, so that each write is an error here: LiteFS refuses it at the commit, which .returning().get() never hears of.
  const connection = new Database(process.env.DATABASE_URL, { readonly: replica, fileMustExist: replica });
  const db = drizzle(connection, { schema });
  if (process.env.LITEFS_CANDIDATE === 'true') {
    connection.pragma('journal_mode = WAL');
    migrate(db, { migrationsFolder: 'db/migrations' });
  }
  return db;
}

/** The database, opened at its first use: at build time there is none. */
export function database() {
  globalThis.__database ??= open();
  return globalThis.__database;
}
