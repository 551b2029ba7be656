// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/coordinator_link.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

// Of the heartbeat time, what a lease leaves for the way of a message and for clocks that differ.
constexpr std::chrono::milliseconds kLeaseMargin{500};

// A place that another process had may be free after this.
constexpr std::chrono::milliseconds kAskAgain{50};

std::int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::uint32_t number(Method method) { return static_cast<std::uint32_t>(method); }

}  // namespace

CoordinatorLink::CoordinatorLink(const CoordinatorLinkOptions& options)
    : connect_timeout_(options.connect_timeout),
      client_({.address = options.address,
               .port = options.port,
               .secret = options.secret,
               .arena = nullptr,
               .name = options.name,
               .connect_timeout = options.connect_timeout,
               .host_id = {}}) {
  const RpcReply reply = register_at(options);
  if (reply.status != kStatusOk) {
    throw_error<ConfigError>("{} cannot join: the coordinator says: {}", options.name,
                             reply.header);
  }
  registered_ = decode<Registered>(reply.header);
  lease_until_us_ = now_us() + (registered_.heartbeat_ms - kLeaseMargin.count()) * 1000;
}

// A process that was started again may come before the end of the former one is noticed.
RpcReply CoordinatorLink::register_at(const CoordinatorLinkOptions& options) {
  const Deadline deadline = Deadline::after(options.connect_timeout);
  while (true) {
    RpcReply reply = client_.call({.method = number(Method::kRegister),
                                   .header = encode(options.registration),
                                   .payload = {},
                                   .reply_space = {},
                                   .timeout = options.connect_timeout});
    if (reply.status != kStatusTaken) return reply;
    if (deadline.remaining() <= kAskAgain) {
      throw PlaceTakenError(fmt::format("{} cannot join within {} ms: {}", options.name,
                                        options.connect_timeout.count(), reply.header));
    }
    std::this_thread::sleep_for(kAskAgain);
  }
}

CoordinatorLink::~CoordinatorLink() { close(); }

void CoordinatorLink::start(OnView on_view, OnEnd on_end) {
  on_view_ = std::move(on_view);
  on_end_ = std::move(on_end);
  thread_ = std::thread([this] { watch(); });
}

std::string CoordinatorLink::declare(const std::string& layout) {
  const RpcReply reply = client_.call({.method = number(Method::kDeclare),
                                       .header = layout,
                                       .payload = {},
                                       .reply_space = {},
                                       .timeout = connect_timeout_});
  if (reply.status != kStatusOk) throw ConfigError(reply.header);
  return reply.header;
}

void CoordinatorLink::report_ready(Term term, std::uint32_t range) {
  client_.call({.method = number(Method::kReady),
                .header = encode(Ready{registered_.id, term, range}),
                .payload = {},
                .reply_space = {}},
               [](const RpcReply&) {});
}

bool CoordinatorLink::lease_holds() const { return now_us() < lease_until_us_; }

// A thread asks, and another acts on the newest view: the heartbeat waits for no one.
void CoordinatorLink::watch() {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Announcement> news;
  bool over = false;
  std::thread actor([&] {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return over || news; });
      if (!news) return;
      const Announcement announcement = *std::exchange(news, std::nullopt);
      lock.unlock();
      on_view_(announcement);
      lock.lock();
    }
  });
  Term known = 0;
  LinkEnd why = LinkEnd::kLost;
  std::string text;
  while (!closing_) {
    const std::int64_t sent_us = now_us();
    try {
      const RpcReply reply = client_.call({.method = number(Method::kWatch),
                                           .header = encode(Watch{registered_.id, known}),
                                           .payload = {},
                                           .reply_space = {},
                                           .timeout = std::chrono::seconds(20)});
      if (reply.status != kStatusOk) {
        why = LinkEnd::kDropped;
        text = "the coordinator has taken this process for gone";
        break;
      }
      lease_until_us_ = sent_us + (registered_.heartbeat_ms - kLeaseMargin.count()) * 1000;
      Announcement announcement = decode<Announcement>(reply.header);
      if (!announcement.view.failure.empty()) {
        why = LinkEnd::kFailed;
        text = announcement.view.failure;
        break;
      }
      if (announcement.finished) {
        why = LinkEnd::kFinished;
        break;
      }
      if (announcement.view.term <= known) continue;
      known = announcement.view.term;
      {
        const std::lock_guard lock(mutex);
        if (news && announcement.layout.empty()) announcement.layout = std::move(news->layout);
        news = std::move(announcement);
      }
      changed.notify_one();
    } catch (const Error& error) {
      text = fmt::format("the coordinator is lost: {}", error.what());
      break;
    }
  }
  {
    const std::lock_guard lock(mutex);
    over = true;
  }
  changed.notify_one();
  actor.join();
  if (!closing_) on_end_(why, text);
}

void CoordinatorLink::leave() {
  try {
    client_.call({.method = number(Method::kLeave),
                  .header = FieldWriter().u64(static_cast<std::uint64_t>(registered_.id)).bytes(),
                  .payload = {},
                  .reply_space = {},
                  .timeout = std::chrono::seconds(1)});
  } catch (const Error&) {
    // It is gone itself.
  }
}

void CoordinatorLink::close() {
  closing_ = true;
  client_.close();
  if (thread_.joinable()) thread_.join();
}

}  // namespace trireme::ps
