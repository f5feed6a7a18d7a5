import { DrizzleAdapter } from '@auth/drizzle-adapter';
import NextAuth from 'next-auth';
import { database, replica } from './db/index.js';
import { accounts, sessions, users, verificationTokens } from './db/schema.js';

function adapter() {
  const made = DrizzleAdapter(database(), {
    usersTable: users,
    accountsTable: accounts,
    sessionsTable: sessions,
    verificationTokensTable: verificationTokens,
  });
  // Auth.js prolongs and removes sessions while it reads them. Where that cannot be written it would take the visitor for signed
  // out; the next request that the primary answers does it.
  return replica ? { ...made, updateSession: async () => null, deleteSession: async () => null } : made;
}

// A sender of mail stands here in an application for people; this one leaves the letter in the log, where tests find it.
const email = {
  id: 'email',
  type: 'email',
  name: 'Email',
  maxAge: 86_400,
  sendVerificationRequest: ({ identifier, url }) => console.log(`mail to ${identifier}: ${url}`),
};

// A function, so that no database is opened at build time.
export const { handlers, auth, signIn, signOut } = NextAuth(() => ({
  adapter: adapter(),
  providers: [email],
  session: { strategy: 'database' },
}));
