"""What the server of the store runs: reserve.py and counters.py once more, atomic, by the server's own clock.

One text for all, so that a server keeps one script. ARGV: what to do, and its input as JSON (wire.py). Numbers come
back as text: a reply cuts them to whole ones. Additions and divisions stand in the order that Python has them in, and
both count in the same doubles: the results are the same, to the bit.

Keys, all behind the prefix:
  minute:SCOPE        by measure: the level of a bucket, and the moment of it; gone when all are full again
  spent:MONTH:SCOPE   of each unit two digits to the base of 10^12, as doubles do not count further than 2^53; and
                      from:JOURNAL, a mark that what this journal has of the month is in the sums
  running:SCOPE       ids of reservations, by the end of their leases; only those whose lease goes on count
  more:SCOPE          the same of what was reserved later for requests that run already, which count once
  held:SCOPE          what each of these has taken of its month: given back where its gateway is dead, once another
                      one says what was used, or after long
  given:SCOPE         ids of which that was given back: who is alive after all pays when it settles
  batch:ID            that a sum of expenses was taken
  gateway:ID          the gateways that are there
"""

SCRIPT = """
local op, input = ARGV[1], cjson.decode(ARGV[2])
local time = redis.call('TIME')
local now = input.now or (tonumber(time[1]) + tonumber(time[2]) / 1e6)
local BASE = 1e12
local UNITS = {'tokens', 'money'}
local KEPT_SPENT_S, KEPT_LAPSED_S, KEPT_MINUTE_S, KEPT_BATCH_S = 6000000, 900, 3000000, 86400

local function key(kind, name) return input.prefix .. ':' .. kind .. ':' .. name end
local function exact(number) return string.format('%.17g', number) end
local function whole(number) return string.format('%.0f', number) end

local function month_of(moment)
  local function is_leap(year) return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) end
  local days, year, month = math.floor(moment / 86400), 1970, 1
  while days >= (is_leap(year) and 366 or 365) do
    days = days - (is_leap(year) and 366 or 365)
    year = year + 1
  end
  local lengths = {31, is_leap(year) and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
  while days >= lengths[month] do
    days = days - lengths[month]
    month = month + 1
  end
  return string.format('%04d-%02d', year, month)
end

local function add(a, b)
  local low = a[2] + b[2]
  local carry = math.floor(low / BASE)
  return {a[1] + b[1] + carry, low - carry * BASE}
end

local function is_more(a, b) return a[1] > b[1] or (a[1] == b[1] and a[2] > b[2]) end

local function spent(name, month)
  local where = key('spent', month .. ':' .. name)
  local found = redis.call('HMGET', where, 'tokens_high', 'tokens_low', 'money_high', 'money_low')
  local function number(place) return tonumber(found[place] or 0) end
  return {tokens = {number(1), number(2)}, money = {number(3), number(4)}}
end

local function spend(name, month, expense)
  local where, known = key('spent', month .. ':' .. name), spent(name, month)
  local fields = {}
  for _, unit in ipairs(UNITS) do
    local sum = add(known[unit], expense[unit])
    if sum[1] < 0 then sum = {0, 0} end
    for digit, name in ipairs({'_high', '_low'}) do
      fields[#fields + 1] = unit .. name
      fields[#fields + 1] = whole(sum[digit])
    end
  end
  redis.call('HSET', where, unpack(fields))
  redis.call('EXPIRE', where, KEPT_SPENT_S)
end

local function knows(name, month)
  return input.journal == '' or redis.call('HEXISTS', key('spent', month .. ':' .. name), 'from:' .. input.journal) == 1
end

local function learn(name, month, prior)
  spend(name, month, prior)
  redis.call('HSET', key('spent', month .. ':' .. name), 'from:' .. input.journal, '1')
end

local function buckets(name)
  local flat, found = redis.call('HGETALL', key('minute', name)), {}
  for place = 1, #flat, 2 do found[flat[place]] = flat[place + 1] end
  return found
end

local function level_now(bucket, most)
  if not bucket or most == 0 then return most end
  local level, at = string.match(bucket, '(%S+) (%S+)')
  return math.min(most, tonumber(level) + math.max(0, now - tonumber(at)) * most / 60)
end

local function take(name, measures)
  if #measures == 0 then return end
  local where, known, keep_s, fields = key('minute', name), buckets(name), 0, {}
  for _, each in ipairs(measures) do
    local measure, most, amount = each[1], each[2], each[3]
    local level = math.min(most, level_now(known[measure], most) - amount)
    fields[#fields + 1] = measure
    fields[#fields + 1] = exact(level) .. ' ' .. exact(now)
    if most > 0 then keep_s = math.max(keep_s, (most - level) * 60 / most) end
  end
  redis.call('HSET', where, unpack(fields))
  keep_s = math.max(redis.call('TTL', where), math.min(KEPT_MINUTE_S, math.ceil(keep_s) + 60))
  redis.call('EXPIRE', where, keep_s)
end

local function give_back(name, id)
  local held = key('held', name)
  local taken = redis.call('HGET', held, id)
  if taken then
    local month, a, b, c, d = string.match(taken, '(%S+) (%S+) (%S+) (%S+) (%S+)')
    spend(name, month, {tokens = {-tonumber(a), -tonumber(b)}, money = {-tonumber(c), -tonumber(d)}})
  end
  redis.call('HDEL', held, id)
end

local function give_back_of_dead(kind, name)
  local where = key(kind, name)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', where, '-inf', exact(now - KEPT_LAPSED_S))) do
    give_back(name, id)
    redis.call('ZREM', where, id)
    redis.call('SADD', key('given', name), id)
    redis.call('EXPIRE', key('given', name), KEPT_BATCH_S)
  end
end

local function hold(kind, name, month, expense)
  local where, held = key(kind, name), key('held', name)
  local taken = {month}
  for _, unit in ipairs(UNITS) do
    for digit = 1, 2 do taken[#taken + 1] = whole(expense[unit][digit]) end
  end
  redis.call('ZADD', where, exact(now + input.lease_s), input.id)
  redis.call('HSET', held, input.id, table.concat(taken, ' '))
  redis.call('EXPIRE', where, KEPT_SPENT_S)
  redis.call('EXPIRE', held, KEPT_SPENT_S)
end

local function num_running(name) return redis.call('ZCOUNT', key('running', name), '(' .. exact(now), '+inf') end

local function state(name, month)
  local sums = spent(name, month)
  local told = {tostring(num_running(name))}
  for _, unit in ipairs(UNITS) do
    told[#told + 1] = whole(sums[unit][1])
    told[#told + 1] = whole(sums[unit][2])
  end
  for measure, bucket in pairs(buckets(name)) do
    told[#told + 1] = measure
    told[#told + 1] = bucket
  end
  return told
end

local function reply(verdict)
  local month = month_of(now)
  local told = {verdict, exact(now), month}
  for _, scope in ipairs(input.scopes) do told[#told + 1] = state(scope.name, month) end
  return told
end

local function is_refused(scope, month)
  if scope.only_counts then return false end
  if scope.is_beyond_context then return true end
  if scope.concurrency and num_running(scope.name) >= scope.concurrency then return true end
  if scope.budget then
    local unit = scope.unit
    local costs = scope.expense[unit][1] > 0 or scope.expense[unit][2] > 0
    if costs and is_more(add(spent(scope.name, month)[unit], scope.expense[unit]), scope.budget) then return true end
  end
  local known = buckets(scope.name)
  for _, each in ipairs(scope.measures) do
    local most, amount = each[2], each[3]
    if amount > level_now(known[each[1]], most) + 1e-6 * math.max(1, most) then return true end
  end
  return false
end

local function reserve()
  local month = month_of(now)
  for _, scope in ipairs(input.scopes) do
    if not knows(scope.name, month) and not scope.prior then return {'unknown', exact(now), month} end
  end
  local refused = false
  for _, scope in ipairs(input.scopes) do
    if not knows(scope.name, month) then learn(scope.name, month, scope.prior) end
    give_back_of_dead('running', scope.name)
    give_back_of_dead('more', scope.name)
    refused = refused or is_refused(scope, month)
  end
  local told = reply(refused and 'refused' or 'granted')
  if not refused then
    for _, scope in ipairs(input.scopes) do
      take(scope.name, scope.measures)
      spend(scope.name, month, scope.expense)
      hold(scope.is_more and 'more' or 'running', scope.name, month, scope.expense)
    end
  end
  return told
end

local function settle()
  for _, scope in ipairs(input.scopes) do
    local num_held = redis.call('ZREM', key('running', scope.name), input.id)
    if num_held == 0 then num_held = redis.call('ZREM', key('more', scope.name), input.id) end
    if num_held == 1 then
      redis.call('HDEL', key('held', scope.name), input.id)
      take(scope.name, scope.measures)
      spend(scope.name, input.month, scope.expense)
    elseif redis.call('SREM', key('given', scope.name), input.id) == 1 then
      spend(scope.name, input.month, scope.used)
    end
  end
  return reply('settled')
end

local function renew()
  redis.call('SET', key('gateway', input.gateway), exact(now), 'EX', 120)
  for _, scope in ipairs(input.scopes) do
    for _, kind in ipairs({'running', 'more'}) do
      local where = key(kind, scope.name)
      for _, id in ipairs(scope.ids) do redis.call('ZADD', where, 'XX', exact(now + input.lease_s), id) end
    end
  end
  return {'renewed', exact(now), month_of(now)}
end

local function is_settled(name, lease)
  if lease == '' then return false end
  if redis.call('ZREM', key('running', name), lease) == 1 then
    give_back(name, lease)
    return false
  end
  return redis.call('SREM', key('given', name), lease) == 0
end

local function owe()
  if redis.call('SET', key('batch', input.id), '1', 'NX', 'EX', KEPT_BATCH_S) then
    local learned = {}
    for _, scope in ipairs(input.scopes) do
      local where = scope.month .. ':' .. scope.name
      local settled = is_settled(scope.name, scope.lease)
      if not knows(scope.name, scope.month) then
        learn(scope.name, scope.month, scope.prior)
        learned[where] = true
      elseif not settled and not learned[where] then
        spend(scope.name, scope.month, scope.expense)
      end
    end
  end
  return {'owed', exact(now), month_of(now)}
end

local function tell() return reply('told') end

return ({reserve = reserve, settle = settle, renew = renew, owe = owe, tell = tell})[op]()
"""
