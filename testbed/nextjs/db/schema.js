// The names of tables and columns that Auth.js's adapter expects, and two tables of our own.
import { integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core';

const moment = (name) => integer(name, { mode: 'timestamp_ms' });
const userId = () => text('userId').notNull().references(() => users.id, { onDelete: 'cascade' });

export const users = sqliteTable('user', {
  id: text('id').primaryKey().$defaultFn(() => crypto.randomUUID()),
  name: text('name'),
  email: text('email').unique(),
  emailVerified: moment('emailVerified'),
  image: text('image'),
});

export const accounts = sqliteTable(
  'account',
  {
    userId: userId(),
    type: text('type').notNull(),
    provider: text('provider').notNull(),
    providerAccountId: text('providerAccountId').notNull(),
  },
  (table) => [primaryKey({ columns: [table.provider, table.providerAccountId] })],
);

export const sessions = sqliteTable('session', {
  sessionToken: text('sessionToken').primaryKey(),
  userId: userId(),
  expires: moment('expires').notNull(),
});

export const verificationTokens = sqliteTable(
  'verificationToken',
  {
    identifier: text('identifier').notNull(),
    token: text('token').notNull(),
    expires: moment('expires').notNull(),
  },
  (table) => [primaryKey({ columns: [table.identifier, table.token] })],
);

export const guests = sqliteTable('guest', {
  id: text('id').primaryKey(),
  since: moment('since').notNull(),
});

export const notes = sqliteTable('note', {
  id: integer('id').primaryKey({ autoIncrement: true }),
  text: text('text').notNull(),
});
