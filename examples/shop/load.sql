-- Fills the shop: 3,000 products, 1,000 customers, 4,000 orders. The same every time.
--
--   psql -d shop -f schema.sql -f load.sql

SELECT setseed(0.42);

-- One word of a list, by chance.
CREATE FUNCTION pick(words text[]) RETURNS text LANGUAGE sql VOLATILE AS
  'SELECT words[1 + floor(random() * array_length(words, 1))::int]';

INSERT INTO products(id, name, description, category, price, stock, tags, updated_at)
SELECT id,
       initcap(material || ' ' || thing),
       'A ' || quality || ' ' || thing || ' made of ' || material || ', ' || feature || '. ' || used ||
         ' ' || care,
       category,
       (3 + floor(random() * 24000) / 100)::numeric(10,2),
       floor(random() * 200)::int,
       ARRAY[category, material, pick(ARRAY['new', 'sale', 'bestseller', 'limited', 'classic'])],
       timestamptz '2025-01-01 00:00:00+00' + random() * interval '300 days'
FROM (
  SELECT id, kind.category, pick(kind.things) AS thing,
         pick(ARRAY['oak', 'beech', 'bamboo', 'steel', 'copper', 'linen', 'cotton', 'wool', 'leather', 'glass',
                    'stoneware', 'cork', 'walnut', 'aluminium', 'recycled plastic']) AS material,
         pick(ARRAY['sturdy', 'light', 'handmade', 'compact', 'generous', 'simple', 'elegant', 'durable',
                    'foldable', 'quiet']) AS quality,
         pick(ARRAY['finished by hand', 'with a lifelong guarantee', 'repairable with common tools',
                    'safe for the dishwasher', 'tested in winter storms', 'with replaceable parts',
                    'shipped without any plastic', 'designed in a small workshop']) AS feature,
         pick(ARRAY['Made for everyday use.', 'A gift that lasts.', 'For small rooms and balconies.',
                    'Loved by professional cooks.', 'Ready for the next trip.', 'For rainy days.',
                    'For mornings that start early.']) AS used,
         pick(ARRAY['Wipe clean with a damp cloth.', 'Wash by hand.', 'Oil it once a year.', 'No care needed.',
                    'Keep it dry.']) AS care
  FROM generate_series(1, 3000) AS id
  JOIN (VALUES
      (0, 'kitchen', ARRAY['kettle', 'teapot', 'chopping board', 'frying pan', 'bread knife', 'salad bowl', 'pepper mill']),
      (1, 'garden',  ARRAY['watering can', 'trowel', 'plant pot', 'bird house', 'rake', 'lantern', 'hammock']),
      (2, 'home',    ARRAY['armchair', 'book shelf', 'blanket', 'floor lamp', 'wall clock', 'door mat', 'coat rack']),
      (3, 'travel',  ARRAY['backpack', 'water bottle', 'travel pillow', 'rain jacket', 'toiletry bag', 'camping stove']),
      (4, 'desk',    ARRAY['notebook', 'pen holder', 'desk lamp', 'monitor stand', 'letter opener', 'waste bin'])
    ) AS kind(number, category, things) ON kind.number = id % 5
) AS generated
ORDER BY id;

INSERT INTO customers(id, name, email, city, created_at)
SELECT id, first || ' ' || last, lower(first) || '.' || lower(last) || id || '@example.com',
       CASE WHEN random() < 0.9 THEN
         pick(ARRAY['Lisbon', 'Oslo', 'Vienna', 'Lyon', 'Ghent', 'Turin', 'Gdansk', 'Cork', 'Zurich', 'Malmo', 'Porto'])
       END,
       timestamptz '2025-01-01 00:00:00+00' + random() * interval '200 days'
FROM (
  SELECT id,
         pick(ARRAY['Ada', 'Bruno', 'Clara', 'Dario', 'Elif', 'Femi', 'Greta', 'Hugo', 'Ines', 'Jonas', 'Kaya', 'Lena',
                    'Mira', 'Noah', 'Olga', 'Pablo', 'Rosa', 'Samir', 'Tilda', 'Yusuf']) AS first,
         pick(ARRAY['Andersen', 'Bianchi', 'Costa', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ivanov',
                    'Jansen', 'Kowalski', 'Lopez', 'Moreau', 'Novak', 'Okafor', 'Petrov']) AS last
  FROM generate_series(1, 1000) AS id
) AS generated
ORDER BY id;

INSERT INTO orders(id, customer_id, status, total_cents, created_at)
SELECT id, 1 + floor(random() * 1000)::bigint, pick(ARRAY['open', 'paid', 'paid', 'sent', 'sent', 'cancelled']),
       300 + floor(random() * 40000)::bigint,
       timestamptz '2025-07-20 00:00:00+00' + id * interval '1 minute'
FROM generate_series(1, 4000) AS id
ORDER BY id;

CREATE SEQUENCE order_ids START 4001;
CREATE SEQUENCE customer_ids START 1001;
