// LiteFS runs this before the application, on the primary only (app_migrate_command).
process.env.LITEFS_CANDIDATE = 'true';
const { database } = await import('./index.js');
database();
