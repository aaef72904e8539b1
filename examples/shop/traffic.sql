-- What goes on in the shop, as a procedure: CALL traffic(200, 0.01) does 200 transactions, 0.01 seconds apart.
-- Inserts, updates, deletes, a change of key and rollbacks.

CREATE OR REPLACE PROCEDURE traffic(transactions int, pause double precision) LANGUAGE plpgsql AS $$
DECLARE
  customer bigint;
BEGIN
  FOR turn IN 1..transactions LOOP
    SELECT id INTO customer FROM customers OFFSET floor(random() * (SELECT count(*) FROM customers)) LIMIT 1;

    -- Somebody orders.
    INSERT INTO orders(id, customer_id, total_cents, created_at)
      VALUES (nextval('order_ids'), customer, 300 + floor(random() * 40000)::bigint, clock_timestamp());
    UPDATE products SET stock = greatest(stock - 1, 0), updated_at = clock_timestamp()
      WHERE id = 1 + floor(random() * 3000)::bigint;

    CASE turn % 8
      WHEN 0 THEN  -- An order changes.
        UPDATE orders SET status = 'paid', total_cents = total_cents + 250
          WHERE id = (SELECT max(id) FROM orders WHERE customer_id = customer);
      WHEN 1 THEN  -- An old order goes to the archive. Never a customer's newest.
        DELETE FROM orders WHERE id = (
          SELECT old.id FROM orders old WHERE old.customer_id = customer AND EXISTS (
            SELECT FROM orders newer WHERE newer.customer_id = customer AND newer.created_at > old.created_at)
          ORDER BY old.id LIMIT 1);
      WHEN 2 THEN  -- A customer moves house.
        UPDATE customers SET city = pick(ARRAY['Lisbon', 'Oslo', 'Vienna', 'Lyon', 'Ghent']) WHERE id = customer;
      WHEN 3 THEN  -- A new customer, who may leave again.
        INSERT INTO customers(id, name, email) VALUES (nextval('customer_ids'), 'New Customer', 'new@example.com');
        DELETE FROM customers WHERE id = (
          SELECT c.id FROM customers c WHERE c.id > 1000 AND random() < 0.5
            AND NOT EXISTS (SELECT FROM orders o WHERE o.customer_id = c.id) LIMIT 1);
      WHEN 4 THEN  -- A product gets a better text.
        UPDATE products SET description = description || ' Now in ' || pick(ARRAY['green', 'blue', 'ochre', 'black']) || '.'
          WHERE id = 1 + floor(random() * 3000)::bigint AND length(description) < 400;
      WHEN 5 THEN  -- Products come and go.
        DELETE FROM products WHERE id = (SELECT max(id) FROM products WHERE id > 3000 AND random() < 0.5);
        INSERT INTO products(id, name, description, category, price)
          VALUES (100000 + nextval('order_ids'), 'Surprise Box', 'A box with something nice in it.', 'home', 19.90);
      WHEN 6 THEN  -- A product gets another number.
        UPDATE products SET id = id + 1000000 WHERE id = (SELECT max(id) FROM products WHERE id BETWEEN 100000 AND 999999);
      ELSE
        NULL;
    END CASE;

    -- Now and then somebody thinks better of it.
    IF turn % 10 = 9 THEN ROLLBACK; ELSE COMMIT; END IF;
    PERFORM pg_sleep(pause);
  END LOOP;
END
$$;
