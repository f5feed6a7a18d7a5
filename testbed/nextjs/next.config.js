/** @type {import('next').NextConfig} */
export default {
  output: 'standalone',
  outputFileTracingRoot: import.meta.dirname,
  turbopack: { root: import.meta.dirname },
  // Not bundled, since db/migrate.js needs them outside Next, too.
  serverExternalPackages: ['better-sqlite3', 'drizzle-orm', '@auth/drizzle-adapter'],
};
