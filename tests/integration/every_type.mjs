// Reads every_type through @clickhouse/client and writes what it got, a line of JSON a row, or a file of bytes.
import { createWriteStream } from 'node:fs'
import { once } from 'node:events'
import { createRequire } from 'node:module'

const [url, modules, format, path, compression] = process.argv.slice(2)
const { createClient } = createRequire(modules + '/')('@clickhouse/client')
const client = createClient({
  url, pathname: '/clickhouse', compression: { response: compression === 'yes' },
  clickhouse_settings: { output_format_json_quote_64bit_integers: 1, output_format_json_quote_denormals: 1,
                         output_format_arrow_low_cardinality_as_dictionary: 0 },
})
if (!(await client.ping()).success) throw new Error('no ping')
const out = createWriteStream(path)
const write = async (data) => { if (!out.write(data)) await once(out, 'drain') }
const query = 'SELECT * FROM every_type ORDER BY u32'
if (format.startsWith('JSON')) {
  const answer = await client.query({ query, format })
  for await (const rows of answer.stream()) {
    for (const row of rows) await write(JSON.stringify(row.json()) + '\n')
  }
} else {
  const answer = await client.exec({ query: `${query} FORMAT ${format}` })
  for await (const piece of answer.stream) await write(piece)
}
out.end()
await once(out, 'finish')
await client.close()
