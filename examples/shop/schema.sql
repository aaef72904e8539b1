-- The shop's tables. Any PostgreSQL 12 or later.

CREATE TABLE products (
  id          bigint PRIMARY KEY,
  name        text NOT NULL,
  description text,
  category    text NOT NULL,
  price       numeric(10,2) NOT NULL,
  stock       int NOT NULL DEFAULT 0,
  tags        text[] NOT NULL DEFAULT '{}',
  updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE customers (
  id         bigint PRIMARY KEY,
  name       text NOT NULL,
  email      text NOT NULL,
  city       text,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
  id          bigint PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES customers(id),
  status      text NOT NULL DEFAULT 'open',
  total_cents bigint NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX orders_by_customer ON orders(customer_id, created_at);
