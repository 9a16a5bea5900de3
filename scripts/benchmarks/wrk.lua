-- Requests for wrk: {id} in the path is a number drawn from 1..most, the same draws in every run.
-- Arguments after "--": path, most. The last line printed is the result as JSON.
local requests, turn = {}, 0

function init(arguments)
  local path, most = arguments[1], tonumber(arguments[2])
  local draws = path:find("{id}", 1, true) and 20000 or 1
  math.randomseed(1)
  for draw = 1, draws do
    requests[draw] = wrk.format("GET", (path:gsub("{id}", math.random(most))))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "megabytes": %f, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.bytes / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
