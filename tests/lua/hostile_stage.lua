-- SPDX-License-Identifier: MIT
--
-- What hostile handshakes are thrown at: a relay, agents whose words and
-- recordings the hostile may have, and what of theirs has to stay as it is.

local h = require("harness")
local secured = require("secured")
local typed = require("typed")
local sys = h.sys

local stages = {}

local Stage = {}
Stage.__index = Stage

-- ---- pairs ------------------------------------------------------------------

-- A data connection for a visitor of an agent, as `line` has it where there is
-- one, and what was sent for it.
local function answer(agent, id, line)
  if not line then
    local data = agent:accept(id)
    return data, data.sent
  end
  local data, text = h.connect(agent.relay), line(agent, id)
  data:send(text)
  return data, text
end

local function serve(agent, line)
  local pair = {}
  pair.visitor, pair.id = secured.visitor(agent)
  pair.data, pair.sent = answer(agent, pair.id, line)
  return pair
end

-- Some bytes each way, and no others.
local function check_pair(pair)
  local visitor, data = pair.visitor, pair.data
  visitor:send("in")
  local got = data.read and data:read(2) or data:recv_exact(2)
  assert(got == "in", "the pair is not what it was")
  local _ = data.write and data:write("out") or data:send("out")
  assert(visitor:recv_exact(3) == "out", "the pair is not what it was")
end

local function end_pair(pair)
  pair.visitor:close()
  pair.data:close()
end

-- ---- a stage ----------------------------------------------------------------

-- Of an agent: a pair, one that is over, and a visitor that nobody has answered
-- yet. `line` is how it answers, where that is in plain.
local function furnish(stage, agent, line)
  local joined, burned = serve(agent, line), serve(agent, line)
  check_pair(burned)
  end_pair(burned)
  local visitor, id = secured.visitor(agent)
  local waiting = { visitor = visitor, id = id, agent = agent, line = line }
  table.insert(stage.joined_pairs, joined)
  table.insert(stage.burned_pairs, burned)
  table.insert(stage.waiting_visitors, waiting)
  return joined, burned, waiting
end

local function begin(stage, options)
  stage.echo = h.start_echoserver(stage.relay, options)
  stage.live, stage.beats = h.connect(stage.echo), 0
  h.wait_until("those that are to be over are", function()
    return select(2, stage.relay:log():gsub("visitor closed", "")) ==
      #stage.burned_pairs
  end)
  stage:check()
  return stage
end

local function open_stage(...)
  local relay = h.start_relay({ "--handshake", h.seconds(1) .. "s",
    "--pairing", "1h", "--dead", "2h", "--heartbeat", "1h", ... })
  return setmetatable({ relay = relay, agents = {}, joined_pairs = {},
    burned_pairs = {}, waiting_visitors = {} }, Stage)
end

-- With tokens: alice and bob, whose data connections are TLS, and carol, whose
-- are plain.
function stages.keyed(...)
  local file, tokens = secured.tokens({ "alice", "bob", "carol", "revoked",
    "expired" }, "--plain")
  h.output_of({ h.program("relay"), "token", "revoke", "revoked", "--tokens",
    file })
  h.write_file(file, (h.read_file(file):gsub("(expired key=[^\n]*)",
    "%1 expires=2020-01-01T00:00:00Z")))
  local stage = open_stage("--tokens", file, "--allow-plain", ...)
  stage.tokens = tokens
  local function agent(id, words)
    stage.agents[id] = secured.agent(stage.relay, id, tokens[id].key,
      { words = words })
    return stage.agents[id]
  end
  agent("bob", "name=bob")
  stage.joined, stage.burned, stage.waiting =
    furnish(stage, agent("alice", "name=alice pool=2"))
  stage.plain = agent("carol", "name=plain data=plain")
  stage.plain_joined, stage.plain_burned, stage.plain_waiting =
    furnish(stage, stage.plain, stage.plain.accept_line)
  return begin(stage, { env = { RELAY_TOKEN = tokens.carol.token } })
end

-- Without: anybody is let in, but what one has is not another's even so.
function stages.open(...)
  local stage = open_stage(...)
  stage.agents.alice = typed.agent(stage.relay)
  stage.agents.bob = typed.agent(stage.relay)
  stage.joined, stage.burned, stage.waiting =
    furnish(stage, stage.agents.alice, function(agent, id)
      return ("RELAY/1 ACCEPT session=%s id=%s\n"):format(agent.session, id)
    end)
  return begin(stage)
end

-- What they aim at is as it was.
function Stage:check()
  for _, pair in ipairs(self.joined_pairs) do
    check_pair(pair)
  end
end

-- Some more of a live pair's bytes, of which each is looked at.
function Stage:beat()
  local text = sys.pattern(7, self.beats * 1000, 1000)
  self.beats = self.beats + 1
  assert(self.live:send(text))
  if assert(self.live:recv_exact(1000)) ~= text then
    error("a live pair's bytes were changed")
  end
end

-- What was stolen in vain is there for whom it is meant.
function Stage:claim()
  for _, waiting in ipairs(self.waiting_visitors) do
    waiting.data = answer(waiting.agent, waiting.id, waiting.line)
    check_pair(waiting)
    end_pair(waiting)
  end
end

-- Somebody honest comes from there, and is served.
function Stage:enter(from)
  local agent
  if self.tokens then
    agent = secured.agent(self.relay, "carol", self.tokens.carol.key,
      { from = from, words = "name=late" })
  else
    agent = typed.agent(self.relay, { from = from })
  end
  local pair = serve(agent, not self.tokens and function(_, id)
    return ("RELAY/1 ACCEPT session=%s id=%s\n"):format(agent.session, id)
  end)
  check_pair(pair)
  end_pair(pair)
  agent:say("BYE")
  agent:close()
end

function Stage:close()
  for _, pair in ipairs(self.joined_pairs) do
    end_pair(pair)
  end
  for _, agent in pairs(self.agents) do
    agent:close()
  end
  self.live:close()
end

return stages
