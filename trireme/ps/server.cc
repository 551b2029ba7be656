// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/base/log.h"
#include "trireme/base/process_cores.h"
#include "trireme/comm/meeting/frame.h"
#include "trireme/comm/rpc/server.h"
#include "trireme/ps/coordinator_link.h"
#include "trireme/ps/local_address.h"
#include "trireme/ps/peer_clients.h"
#include "trireme/ps/range_host.h"

namespace trireme::ps {
namespace {

// What was lost on the way to a follower is sent again after this.
constexpr std::chrono::milliseconds kTick{500};
// A follower that takes longer is waited for no more: the message is sent again.
constexpr std::chrono::milliseconds kReplicationTime = std::chrono::seconds(60);

std::string reachable_address(const ServerOptions& options) {
  if (!options.address.empty()) return options.address;
  return address_towards(options.coordinator_address, options.coordinator_port);
}

}  // namespace

class Server::Impl final : public RangeContext {
 public:
  explicit Impl(const ServerOptions& options)
      : name_(fmt::format("server {}", options.index)),
        address_(reachable_address(options)),
        buffers_(arena_),
        peers_(arena_, options.secret, name_),
        strands_(options.threads > 0 ? options.threads : static_cast<int>(process_cores().size())),
        server_({.address = address_,
                 .port = options.port,
                 .secret = options.secret,
                 .on_request = [this](RpcRequest request) { handle(std::move(request)); },
                 .on_closed = {},
                 .host_id = {}}),
        link_({.address = options.coordinator_address,
               .port = options.coordinator_port,
               .secret = options.secret,
               .registration = {.is_server = true,
                                .index = options.index,
                                .address = address_,
                                .port = server_.port()},
               .name = name_,
               .connect_timeout = options.join_timeout}) {
    link_.start([this](const Announcement& news) { enter_view(news); },
                [this](LinkEnd end, const std::string& why) { end_with(end, why); });
    ticker_ = std::thread([this] { tick(); });
  }

  ~Impl() override {
    stop();
    ticker_.join();
    link_.close();
    server_.close();
    strands_.stop();
    // Backups may be at what they were sent last, which they then hold alone.
    arena_.leave_to_readers();
    peers_.close();
  }

  const std::string& address() const { return address_; }
  int port() const { return server_.port(); }

  ServerEnd wait() {
    std::unique_lock lock(mutex_);
    over_.wait(lock, [this] { return end_.has_value() || stopping_; });
    if (!end_ || *end_ == LinkEnd::kFinished) return ServerEnd::kFinished;
    if (*end_ == LinkEnd::kDropped) return ServerEnd::kDropped;
    throw CommError(fmt::format("{}: {}", name_, why_));
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    over_.notify_all();
  }

  ServerReport report() const {
    ServerReport report;
    const std::lock_guard lock(mutex_);
    for (const auto& host : hosts_) host->add_to(report);
    return report;
  }

  // RangeContext
  BufferPool& buffers() override { return buffers_; }
  void send(ServerId to, Method method, const Replication& header, Bytes payload,
            std::function<void(std::optional<Replicated>)> done) override {
    const std::shared_ptr<RpcClient> client = peers_.connect(to);
    if (client == nullptr) return done(std::nullopt);
    RpcCall call{.method = static_cast<std::uint32_t>(method),
                 .header = encode(header),
                 .payload = {},
                 .reply_space = {},
                 .timeout = kReplicationTime};
    if (!payload.empty()) call.payload.push_back(payload);
    client->call(std::move(call), [done = std::move(done)](const RpcReply& reply) {
      if (reply.error != nullptr || reply.status != kStatusOk) return done(std::nullopt);
      try {
        done(decode<Replicated>(reply.header));
      } catch (const ProtocolError&) {
        done(std::nullopt);
      }
    });
  }
  void report_ready(Term term, std::uint32_t range) override { link_.report_ready(term, range); }
  bool lease_holds() const override { return link_.lease_holds(); }
  void fail(const std::string& why) override { end_with(LinkEnd::kFailed, why); }

 private:
  // On the link's thread.
  void enter_view(const Announcement& news) {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    if (!layout_) {
      if (news.layout.empty()) return;
      layout_ = std::make_unique<JobLayout>(JobLayout::decode(news.layout));
      for (std::uint32_t i = 0; i < news.view.ranges.size(); ++i) {
        hosts_.push_back(std::make_unique<RangeHost>(*this, strands_, link_.id(), *layout_, i));
      }
    }
    peers_.enter_view(news.view.servers);
    for (std::size_t i = 0; i < hosts_.size(); ++i) {
      hosts_[i]->enter_view(news.view.term, news.view.ranges[i], news.view.workers);
    }
    log_holdings(news.view);
  }

  void log_holdings(const View& view) {
    std::int64_t primary = 0;
    std::int64_t backup = 0;
    for (const RangeView& range : view.ranges) {
      primary += range.primary == link_.id();
      backup += range.backup == link_.id();
    }
    const std::pair holds(primary, backup);
    if (std::exchange(holds_, holds) == holds) return;
    log_info("{} is primary of {} ranges and backup of {}", name_, primary, backup);
  }

  void end_with(LinkEnd end, const std::string& why) {
    {
      const std::lock_guard lock(mutex_);
      if (end_) return;
      end_ = end;
      why_ = why;
    }
    over_.notify_all();
  }

  // On the RPC server's thread.
  void handle(RpcRequest request) {
    const auto method = static_cast<Method>(request.method());
    try {
      if (method == Method::kReport) return request.reply(kStatusOk, encode(report()));
      // After a stop of this process others may hold its ranges: what was sent to it before must
      // not be acted on. Who asks will ask again, where it must.
      if (!link_.lease_holds()) return request.reply(kStatusNotHere, encode(RangeReply{}));
      if (method == Method::kReplicate || method == Method::kTakeState) {
        auto header = decode<Replication>(request.header());
        if (RangeHost* const host = find(header.range)) {
          return host->handle(method, std::move(header), std::move(request));
        }
      } else if (method >= Method::kInit && method <= Method::kSnapshot) {
        auto header = decode<RangeRequest>(request.header());
        if (RangeHost* const host = find(header.range)) {
          return host->handle(method, std::move(header), std::move(request));
        }
      } else {
        return request.reply(kStatusRefused,
                             encode(RangeReply{.extras = {},
                                               .block_sums = {},
                                               .text = fmt::format("method {} is none of a server",
                                                                   request.method())}));
      }
      request.reply(kStatusNotHere, encode(RangeReply{}));
    } catch (const ProtocolError& error) {
      log_warn("{}: a request of {} is not understood: {}", name_, request.client(), error.what());
      request.reply(kStatusRefused,
                    encode(RangeReply{.extras = {}, .block_sums = {}, .text = error.what()}));
    }
  }

  RangeHost* find(std::uint32_t range) {
    const std::lock_guard lock(mutex_);
    return range < hosts_.size() ? hosts_[range].get() : nullptr;
  }

  void tick() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      over_.wait_for(lock, kTick, [this] { return stopping_; });
      for (const auto& host : hosts_) host->tick();
    }
  }

  const std::string name_;
  const std::string address_;
  RpcArena arena_;
  BufferPool buffers_;
  PeerClients peers_;

  mutable std::mutex mutex_;
  std::condition_variable over_;
  // Guarded by mutex_. Layout and hosts only grow.
  std::unique_ptr<JobLayout> layout_;
  std::vector<std::unique_ptr<RangeHost>> hosts_;
  std::pair<std::int64_t, std::int64_t> holds_;  // ranges, as primary and as backup
  std::optional<LinkEnd> end_;
  std::string why_;
  bool stopping_ = false;

  Strands strands_;
  RpcServer server_;
  CoordinatorLink link_;
  std::thread ticker_;
};

Server::Server(const ServerOptions& options) : impl_(std::make_unique<Impl>(options)) {}
Server::~Server() = default;
const std::string& Server::address() const { return impl_->address(); }
int Server::port() const { return impl_->port(); }
ServerEnd Server::wait() { return impl_->wait(); }
void Server::stop() { impl_->stop(); }
ServerReport Server::report() const { return impl_->report(); }

}  // namespace trireme::ps
