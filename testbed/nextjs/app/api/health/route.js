import { sql } from 'drizzle-orm';
import { database } from '../../../db/index.js';

export const dynamic = 'force-dynamic';

export function GET() {
  try {
    database().get(sql`SELECT count(*) FROM sqlite_master`); // `SELECT 1` would not touch the file
    return Response.json({ status: 'healthy', pod: process.env.POD_NAME });
  } catch (error) {
    return Response.json({ status: 'unhealthy', error: String(error) }, { status: 503 });
  }
}
