-- Verifies Meta's signature with OpenSSL's HMAC and answers when Redis has the webhook in a stream.
local ffi = require "ffi"
local redis = require "nginx.redis"

ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *md, const void *key, int key_len, const unsigned char *data, size_t bytes,
                    unsigned char *out, unsigned int *out_len);
int CRYPTO_memcmp(const void *a, const void *b, size_t len);
]]
local crypto = ffi.load "libcrypto.so.3"
local sha256 = crypto.EVP_sha256()
local secret = os.getenv "APP_SECRET"
local port = tonumber(os.getenv "REDIS_PORT")
local digest, digest_len = ffi.new "unsigned char[32]", ffi.new "unsigned int[1]"

local hex = {}
for byte = 0, 255 do hex[byte] = string.format("%02x", byte) end

local function sign(body)
  crypto.HMAC(sha256, secret, #secret, body, #body, digest, digest_len)
  local out = {}
  for place = 0, 31 do out[place + 1] = hex[digest[place]] end
  return "sha256=" .. table.concat(out)
end

local function handle()
  if ngx.req.get_method() == "GET" then return ngx.exit(200) end
  ngx.req.read_body()
  local body = ngx.req.get_body_data() or ""
  local claimed = ngx.var.http_x_hub_signature_256 or ""
  local expected = sign(body)
  if #claimed ~= #expected or crypto.CRYPTO_memcmp(claimed, expected, #expected) ~= 0 then return ngx.exit(401) end
  local store = redis:new()
  store:set_timeout(5000)
  if not store:connect("127.0.0.1", port) then return ngx.exit(503) end
  local id = store:xadd("webhooks", "*", "body", body)
  if not id then return ngx.exit(503) end
  store:set_keepalive(60000, 1024)
  ngx.header.content_length = 0
  return ngx.exit(200)
end

return { handle = handle }
