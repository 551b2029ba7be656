// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Gloo's own collectives over its TCP transport on the loopback, measured as ours are. Starts its
// processes itself:
//
//   gloo_peer --ranks 2 --op all_reduce --bytes 64MiB

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/alltoall.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/reduce_scatter.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/peers/peer_main.h"
#include "trireme/base/error.h"
#include "trireme/launch/environment.h"
#include "trireme/launch/local_workers.h"

namespace trireme::peers {
namespace {

using Context = std::shared_ptr<gloo::Context>;
// Gloo's algorithms are made once for their buffers and then run many times.
using Run = std::function<void()>;
using MakeRun = std::function<Run(const Context&, const BenchVectors&)>;

float* data(const Buffer& buffer) { return static_cast<float*>(buffer.data); }
std::size_t count(const Buffer& buffer) { return static_cast<std::size_t>(buffer.count); }

MakeRun all_reduce_by(gloo::AllreduceOptions::Algorithm algorithm) {
  return [algorithm](const Context& context, const BenchVectors& v) -> Run {
    auto options = std::make_shared<gloo::AllreduceOptions>(context);
    options->setAlgorithm(algorithm);
    options->setOutput(data(v.output), count(v.output));
    void (*sum)(void*, const void*, const void*, std::size_t) = &gloo::sum<float>;
    options->setReduceFunction(sum);
    return [options] { gloo::allreduce(*options); };
  };
}

template <class Algorithm>
Run all_reduce_of(const Context& context, const BenchVectors& v) {
  const std::vector<float*> pointers = {data(v.output)};
  auto algorithm = std::make_shared<Algorithm>(context, pointers, static_cast<int>(v.output.count));
  return [algorithm] { algorithm->run(); };
}

Run reduce_scatter(const Context& context, const BenchVectors& v) {
  const std::vector<float*> pointers = {data(v.input)};
  const std::vector<int> counts(static_cast<std::size_t>(context->size),
                                static_cast<int>(v.output.count));
  auto algorithm = std::make_shared<gloo::ReduceScatterHalvingDoubling<float>>(
      context, pointers, static_cast<int>(v.input.count), counts);
  return [algorithm] { algorithm->run(); };
}

template <class Options, void (*Function)(Options&)>
Run move(const Context& context, const BenchVectors& v) {
  auto options = std::make_shared<Options>(context);
  options->setInput(data(v.input), count(v.input));
  options->setOutput(data(v.output), count(v.output));
  return [options] { Function(*options); };
}

struct Algorithm {
  std::string name;
  std::string operation;
  MakeRun make;
};

const std::vector<Algorithm>& algorithms() {
  using Choice = gloo::AllreduceOptions::Algorithm;
  static const std::vector<Algorithm> kAlgorithms = {
      {"gloo-ring", "all_reduce", all_reduce_by(Choice::RING)},
      {"gloo-bcube", "all_reduce", all_reduce_by(Choice::BCUBE)},
      {"gloo-ring-chunked", "all_reduce", all_reduce_of<gloo::AllreduceRingChunked<float>>},
      {"gloo-halving-doubling", "all_reduce", all_reduce_of<gloo::AllreduceHalvingDoubling<float>>},
      {"gloo-halving-doubling", "reduce_scatter", reduce_scatter},
      {"gloo", "all_gather", move<gloo::AllgatherOptions, gloo::allgather>},
      {"gloo", "all_to_all", move<gloo::AlltoallOptions, gloo::alltoall>},
  };
  return kAlgorithms;
}

BenchSubject subject_of(const Context& context, const Algorithm& algorithm) {
  BenchSubject subject;
  subject.rank = context->rank;
  subject.size = context->size;
  subject.reduce_scatter_in_place = true;
  subject.barrier = [context] {
    gloo::BarrierOptions options(context);
    gloo::barrier(options);
  };
  subject.max_over_ranks = [context](std::span<double> values) {
    gloo::AllreduceOptions options(context);
    options.setOutput(values.data(), values.size());
    void (*max)(void*, const void*, const void*, std::size_t) = &gloo::max<double>;
    options.setReduceFunction(max);
    gloo::allreduce(options);
  };
  struct Made {
    void* of = nullptr;
    std::int64_t count = -1;
    Run run;
  };
  subject.run = [context, make = algorithm.make, made = std::make_shared<Made>()](
                    const BenchOperation&, const BenchVectors& vectors) {
    if (made->of != vectors.output.data || made->count != vectors.output.count) {
      *made = {vectors.output.data, vectors.output.count, make(context, vectors)};
    }
    made->run();
  };
  return subject;
}

Context connect(const LaunchInfo& info, const std::string& folder) {
  gloo::transport::tcp::attr loopback;
  loopback.hostname = "127.0.0.1";
  auto context = std::make_shared<gloo::rendezvous::Context>(info.rank, info.size);
  context->setTimeout(std::chrono::seconds(60));
  gloo::rendezvous::FileStore store(folder);
  std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(loopback);
  context->connectFullMesh(store, device);
  return context;
}

int run_rank(const LaunchInfo& info, const PeerArguments& arguments, const std::string& folder) {
  follow_launcher();
  const Context context = connect(info, folder);
  for (const Algorithm& algorithm : algorithms()) {
    run_peer({algorithm.name, subject_of(context, algorithm), {algorithm.operation}}, arguments);
  }
  return 0;
}

int run_workers(int ranks, std::vector<std::string> command) {
  std::string folder = (std::filesystem::temp_directory_path() / "gloo-peer-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) throw_error<Error>("cannot make {}", folder);
  command.front() = std::filesystem::read_symlink("/proc/self/exe").string();
  command.insert(command.end(), {"--store", folder});
  const int status = run_local_workers({.workers = ranks, .command = command});
  std::filesystem::remove_all(folder);
  return status;
}

int run(int argc, char** argv) {
  CLI::App app("Gloo's own collectives, measured as ours are.", "gloo_peer");
  PeerArguments arguments;
  int ranks = 2;
  std::string folder;
  add_peer_options(app, arguments);
  app.add_option("--ranks", ranks);
  app.add_option("--store", folder)->group("");
  CLI11_PARSE(app, argc, argv);
  try {
    const LaunchInfo info = launch_info();
    if (info.launcher != Launcher::kNone) return run_rank(info, arguments, folder);
    return run_workers(ranks, {argv, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gloo_peer: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace trireme::peers

int main(int argc, char** argv) { return trireme::peers::run(argc, argv); }
