---@meta relay
-- SPDX-License-Identifier: MIT
--
-- The module `relay` and the table of a policy, for lua-language-server: it
-- completes names and finds mistakes while one types. Nothing of it is run.

-- ---- the policy -------------------------------------------------------------

---What a policy script returns. Any hook may be left out.
---@class relay.Policy
---The settings of the command line, "-" as "_". The command line wins.
---@field options? table<string, string|number|boolean|integer[]>
---Loaded: before listening, or on reload before the swap, with what `save` gave.
---@field start? fun(prev?: table)
---On reload, in the old policy. A plain table for the next one's `start`.
---@field save? fun(): table?
---@field stop? fun(reason: "exit"|"reload")
---An agent says who it is. nil denies.
---@field auth? fun(agent: relay.Agent, cred: relay.Credentials): boolean?, string?
---An agent wants an address. nil: the relay picks.
---@field allocate? fun(agent: relay.Agent, want: relay.Want): relay.Address|integer|boolean|nil, string?
---A visitor was accepted; nothing was read. nil: let in, to the least loaded.
---@field visitor? fun(conn: relay.Conn, agents: relay.Agent[]): relay.Agent|boolean|nil, string?
---First bytes of a conn that `visitor` asked for. An integer: so many are needed.
---@field peek? fun(conn: relay.Conn, bytes: string): relay.Agent|integer|boolean|nil, string?
---@field open? fun(conn: relay.Conn)
---Both sides are gone. Once for each conn that `visitor` let in.
---@field close? fun(conn: relay.Conn)
---@field agent_gone? fun(agent: relay.Agent, reason: string)
---Every second; the answer is the next interval.
---@field tick? fun(now: number): number?
---A log record. A string is logged in its place, false drops it. May not wait.
---@field log? fun(event: relay.Event): string|boolean|nil

---What an agent presents.
---@class (exact) relay.Credentials
---@field id? string of its token, or what its certificate calls it
---@field kind? "token"|"certificate" what `id` is of
---@field certificate? string the common name in a certificate that was verified
---@field fingerprint? string SHA-256 of that certificate, in hexadecimal digits
---Has the agent prove this key, 32 bytes or 64 hexadecimal digits, and waits for
---that. It does not come back when the agent cannot.
---@field verify fun(self: relay.Credentials, key: string): true
---Whether it would be let in without this hook: the tokens file has a good
---token with this id, or there is no such file and a certificate is enough.
---@field known fun(self: relay.Credentials): boolean

---What an agent asks for.
---@class (exact) relay.Want
---@field port? integer
---@field host? string the name it dialed
---@field attempt integer 1, then more while ports turned out to be taken

---An address for an agent.
---@class (exact) relay.Address
---@field port? integer
---@field host? string what the agent is told
---@field share? boolean others may hold the port too

---@class (exact) relay.Event
---@field level "debug"|"info"|"warn"|"error"
---@field msg string
---@field conn? integer
---@field fields table<string, string|integer>

-- ---- conns and agents -------------------------------------------------------

---A visitor's connection. Once it is closed only `alive`, `data` and tostring
---work.
---@class (exact) relay.Conn
---@field id integer a small counter
---@field addr string where it comes from, without the port
---@field port integer its own
---@field listen_port integer where it connected to
---@field agent? relay.Agent that serves it
---@field bytes_in integer from the visitor
---@field bytes_out integer to the visitor
---@field duration number seconds
---@field reason? string in `close`: why it ended
---@field eof boolean in `peek`: the visitor sends no more
---@field alive boolean
---@field data any yours
local Conn = {}

---Resets it. In a hook that decides on it: as `return false, why`.
---@param why? string
---@return true
function Conn:close(why) end

---@param limits relay.ConnLimits
---@return true?
---@return string? err
function Conn:limit(limits) end

---Shown in the log record of its end. Without a value: removes it.
---@param key string
---@param value? any
---@return true?
---@return string? err
function Conn:tag(key, value) end

---In `visitor`: asks for the first bytes, for at most so long.
---@param seconds number
---@return true
function Conn:peek(seconds) end

---Bytes per second, and seconds. false: no limit.
---@class (exact) relay.ConnLimits
---@field rate_in? number|false
---@field rate_out? number|false
---@field idle? number|false

---The sum of an agent's conns, in bytes per second.
---@class (exact) relay.AgentLimits
---@field rate_in? number|false
---@field rate_out? number|false

---An agent: one that asked for a public address.
---@class (exact) relay.Agent
---@field id integer
---@field name string what it calls itself
---@field addr string where it connects from
---@field ports integer[] its public ports
---@field conns integer visitors it has now
---@field since number seconds that it has been here
---@field alive boolean
---@field data any yours
local Agent = {}

---Ends it and its address.
---@param why? string
---@return true
function Agent:close(why) end

---@param limits relay.AgentLimits
---@return true?
---@return string? err
function Agent:limit(limits) end

-- ---- the module -------------------------------------------------------------

---@class (exact) relay
---@field version string
---@field kv relay.Kv
local relay = {}

---Monotonic seconds.
---@return number
function relay.now() end

---Waits. Nobody else does.
---@param seconds number
function relay.sleep(seconds) end

---Waits for what calls back: calls `run(wake)` and goes on once `wake` is
---called; returns what it is called with, or nil and "timeout".
---@param run fun(wake: fun(...: any): boolean)
---@param seconds? number
---@return any ...
function relay.wait(run, seconds) end

---A TCP socket with the calls of LuaSocket's, which waits in the hook.
---@return table?
---@return string? err
function relay.tcp() end

---Runs a function beside the hooks, from the next turn of the loop. It may wait.
---@param run function
---@param ... any
function relay.spawn(run, ...) end

---Runs a function again and again, until it returns false. It may wait.
---@param seconds number
---@param run fun(): any
---@return relay.Every
function relay.every(seconds, run) end

---@class (exact) relay.Every
local Every = {}

function Every:stop() end

---Addresses of a name. Waits.
---@param host string
---@return string[]?
---@return string? err
function relay.resolve(host) end

---Those that are connected now.
---@return relay.Agent[]
function relay.agents() end

---Those that are open now.
---@return relay.Conn[]
function relay.conns() end

---@class (exact) relay.Stats
---@field agents integer
---@field leases integer
---@field visitors integer
---@field pairs integer
---@field parked integer
---@field waiting integer
---@field unproven integer
---@field fds integer
---@field pipes integer
---@field agents_total integer
---@field visitors_total integer
---@field refused_total integer
---@field bytes_in integer
---@field bytes_out integer

---@return relay.Stats
function relay.stats() end

---A public port that belongs to no agent: `allocate` may give it to many.
---@param address { port: integer, host?: string }
---@return true?
---@return string? err
function relay.listen(address) end

---Loads the script anew, in the next turn of the loop.
---@return true?
---@return string? err
function relay.reload() end

---With further arguments, `message` is a format as for string.format.
---@param level "debug"|"info"|"warn"|"error"
---@param message any
---@param ... any
function relay.log(level, message, ...) end

---A set of addresses and networks.
---@param networks string[]
---@return relay.Cidr
function relay.cidr(networks) end

---@class (exact) relay.Cidr
local Cidr = {}

---@param addr string
---@return boolean
function Cidr:has(addr) end

---The server name of a TLS ClientHello. nil: there is none. false: `need` bytes
---are needed to tell.
---@param bytes string
---@return string|false|nil name
---@return integer? need
function relay.sni(bytes) end

---The Host of an HTTP/1 request, without its port; as sni.
---@param bytes string
---@return string|false|nil name
---@return integer? need
function relay.http_host(bytes) end

---The software an SSH client names, "OpenSSH_9.2p1"; as sni.
---@param bytes string
---@return string|false|nil banner
---@return integer? need
function relay.ssh(bytes) end

---Strings and numbers by name. They outlive a reload, not the relay.
---@class (exact) relay.Kv
local kv = {}

---@param key string
---@return string|number|nil
function kv.get(key) end

---nil deletes. `ttl` is in seconds.
---@param key string
---@param value string|number|nil
---@param ttl? number
---@return boolean
function kv.set(key, value, ttl) end

---Adds `by` (1) and returns the sum. `ttl` counts from the first.
---@param key string
---@param by? number
---@param ttl? number
---@return number
function kv.incr(key, by, ttl) end

---@param key string
---@return boolean there_was_one
function kv.delete(key) end

return relay
