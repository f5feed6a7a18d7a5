CREATE TABLE `user` (
  `id` text PRIMARY KEY NOT NULL,
  `name` text,
  `email` text UNIQUE,
  `emailVerified` integer,
  `image` text
);
--> statement-breakpoint
CREATE TABLE `account` (
  `userId` text NOT NULL REFERENCES `user`(`id`) ON DELETE CASCADE,
  `type` text NOT NULL,
  `provider` text NOT NULL,
  `providerAccountId` text NOT NULL,
  PRIMARY KEY (`provider`, `providerAccountId`)
);
--> statement-breakpoint
CREATE TABLE `session` (
  `sessionToken` text PRIMARY KEY NOT NULL,
  `userId` text NOT NULL REFERENCES `user`(`id`) ON DELETE CASCADE,
  `expires` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `verificationToken` (
  `identifier` text NOT NULL,
  `token` text NOT NULL,
  `expires` integer NOT NULL,
  PRIMARY KEY (`identifier`, `token`)
);
--> statement-breakpoint
CREATE TABLE `guest` (
  `id` text PRIMARY KEY NOT NULL,
  `since` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `note` (
  `id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
  `text` text NOT NULL
);
