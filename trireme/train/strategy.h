// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Strategies: how a model is spread over workers, in the words of tf.distribute. A whole program:
//
//   trireme::MirroredStrategy strategy({.workers = 2});
//   const auto scope = strategy.scope();
//   trireme::Model model(scope, torch::nn::Sequential(...));            // model.h
//   model.compile(trireme::Adam(), trireme::BinaryCrossEntropy());
//   model.fit({x, y}, {.epochs = 10, .batch_size = 32});
//   strategy.close();
//
//   MirroredStrategy             one host; each worker has the whole model and a part of the batch
//   MultiWorkerMirroredStrategy  the same on several hosts, started by torchrun, srun, mpirun, ...
//   ShardedStrategy              each worker keeps a share of the optimizer's state (stage 1), of
//                                the gradients (2), of the weights (3); one host or several
//   ParameterServerStrategy      servers keep weights and optimizer; workers may be unequal, be
//   lost,
//                                and need not wait for one another
//
// How workers come to be. Where a launcher has started this process, it joins the others. Where
// nothing has and `workers` is more than one, the constructor starts the others: this program
// again, with the same arguments. This process is rank 0 and goes on; the others start at main()
// and reach the same line. So every worker does what stands before it, and everything after it is
// done together; what shall be printed once wants `if (strategy.rank() == 0)`. Nothing is forked
// that goes on, nothing exits: where a worker ends early the others get a PeerLostError (with
// parameter servers they go on), and when this process ends, so do the ones that it started.
//
// The numbers of a run do not depend on the number of workers. A batch is cut into a fixed number
// of micro-batches, by default 4, whose losses and gradients are summed in one order whoever
// computes them: 1, 2 and 4 workers train the same model, bit for bit. The bits of a matrix product
// also depend on the number of threads, so that is one per worker unless you say more.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "trireme/comm/codec/compressed_all_reduce.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/ps/worker.h"
#include "trireme/train/optimizer_recipe.h"
#include "trireme/train/spread_model.h"

namespace torch::nn {
class Module;
}

namespace trireme {

class CompanionWorkers;
class Group;
class HostedJob;
class ServedParameters;
class Strategy;

// What models are made in: they belong to its strategy. While it lives LibTorch's generator of
// random numbers on the CPU starts from the strategy's seed, so that every run makes the same model
// on every worker; afterwards it goes on as before. Made by Strategy::scope().
class StrategyScope {
 public:
  StrategyScope(Strategy& strategy, std::uint64_t seed);
  ~StrategyScope();
  StrategyScope(const StrategyScope&) = delete;
  StrategyScope& operator=(const StrategyScope&) = delete;

  Strategy& strategy() const { return strategy_; }

 private:
  Strategy& strategy_;
  at::Tensor generator_state_;
};

// Not thread-safe. One per program; on the main thread where it starts workers. Models must not
// outlive it.
class Strategy {
 public:
  virtual ~Strategy() = default;  // does not communicate; kills workers that it started
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;  // workers that it begins with
  StrategyScope scope() { return {*this, seed_}; }
  // The last line of a program: leaves the others and waits for the workers that this process
  // started. Idempotent. Throws CommError; Error when one of them failed.
  virtual void close() = 0;

  // For Model: the module, which becomes rank 0's on all ranks, with an optimizer, and an average
  // of the weights (CompileOptions in model.h). Collective, blocking. Throws ConfigError: the ranks
  // cannot share the micro-batches, a recipe that this strategy has no optimizer for, a decay that
  // is out of range; what Replica, ShardedModel and ServedParameters throw.
  virtual std::unique_ptr<SpreadModel> spread(torch::nn::Module& module,
                                              const OptimizerRecipe& recipe,
                                              double average_decay) = 0;

 protected:
  explicit Strategy(std::uint64_t seed) : seed_(seed) {}
  std::uint64_t seed() const { return seed_; }

 private:
  std::uint64_t seed_;
};

// The strategies whose workers are the ranks of a world.
class WorldStrategy : public Strategy {
 public:
  ~WorldStrategy() override;
  int rank() const override;
  int size() const override;
  Group& world() const { return *world_; }
  void close() override;

 protected:
  // What all of them are told. micro_batches: of a batch; 0: 4, or for more or an odd number of
  // workers the least number above that they can share. even_shares: they share alike (ZeRO stages
  // 2 and 3), so that any but a power of two of them take one micro-batch each.
  struct Common {
    int workers = 1;
    int threads = 1;  // of each; 0: the host's cores, divided among its workers
    std::int64_t micro_batches = 0;
    std::uint64_t seed = 0;
    bool one_host = false;  // several are refused
    bool even_shares = false;
  };
  // Starts or joins. Throws ConfigError: workers that a launcher has started in another number or
  // on several hosts, numbers out of range, all before any socket is opened; workers that were told
  // different things; what join_world() throws.
  explicit WorldStrategy(const Common& common);
  // On a group that is there; outlives this.
  WorldStrategy(Group& group, const Common& common);

  std::int64_t micro_batches() const { return micro_batches_; }

 private:
  std::unique_ptr<CompanionWorkers> companions_;
  std::unique_ptr<Group> own_world_;
  Group* world_;
  std::int64_t micro_batches_;
};

struct MirroredOptions {
  int workers = 1;
  int threads = 1;                 // of each; 0: the host's cores, divided among its workers
  std::int64_t micro_batches = 0;  // of a batch; 0: 4, or what the workers can share
  std::uint64_t seed = 0;          // of the models' initial weights
  std::optional<CompressionOptions> compression = std::nullopt;  // docs/compression.md
};

class MirroredStrategy : public WorldStrategy {
 public:
  // Throws ConfigError as Strategy does, and when a launcher has started workers on several hosts.
  explicit MirroredStrategy(const MirroredOptions& options = {});
  MirroredStrategy(Group& group, const MirroredOptions& options);
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  std::optional<CompressionOptions> compression_;
};

struct MultiWorkerMirroredOptions {
  int threads = 1;
  std::int64_t micro_batches = 0;
  std::uint64_t seed = 0;
  std::optional<CompressionOptions> compression = std::nullopt;
};

// The world that a launcher has started, or a world of one.
class MultiWorkerMirroredStrategy : public WorldStrategy {
 public:
  explicit MultiWorkerMirroredStrategy(const MultiWorkerMirroredOptions& options = {});
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  std::optional<CompressionOptions> compression_;
};

struct ShardedOptions {
  int stage = 1;  // 0 to 3, see parallel/shard/sharded_model.h
  int workers = 1;
  int threads = 1;                 // of each; 0: the host's cores, divided among its workers
  std::int64_t micro_batches = 0;  // of a batch; 0: 4, or what the workers can share
  std::uint64_t seed = 0;          // of the models' initial weights
  // Workers side by side that keep one copy of the model between them, those of a host say; 0: all;
  // kHostRanks: those of each host (docs/data_parallel.md).
  int shard_ranks = 0;
};

// Models in f32. Stages 2 and 3 go through a Sequential child by child: stage 3 gathers the weights
// of one, and of the next ahead, and frees them after it. A child makes a tensor of a tensor; what
// several children share is there all the time. Any other module is gathered whole for each
// micro-batch and freed after it.
class ShardedStrategy : public WorldStrategy {
 public:
  // On one host, or the world that a launcher has started on several.
  explicit ShardedStrategy(const ShardedOptions& options = {});
  ShardedStrategy(Group& group, const ShardedOptions& options);
  // Throws ConfigError also for a recipe without an optimizer over shards, and for shard_ranks that
  // the workers cannot form.
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  int stage_;
  int shard_ranks_;
};

// As parallel.ps of `trireme train` has them, see docs/parameter_server.md.
struct ParameterServerOptions {
  int servers = 1;
  int workers = 1;
  int threads = 1;                 // of each worker; 0: the host's cores, divided among its workers
  std::int64_t micro_batches = 0;  // of a batch; 0: 4, or what the workers can share
  std::uint64_t seed = 0;          // of the models' initial weights
  std::string consistency = "sync";  // or bounded(k), async
  std::string codec = {};            // of gradients: "" (f32), bf16, int8, topk(f)
  bool backups = true;               // each range of weights is on two servers, where there are two
  std::int64_t range_bytes = std::int64_t{4} << 20;
};

// Models in f32 on the CPU, with the optimizers of ShardedStrategy.
//
// Where `trireme launch --servers S --workers W` has started this process, it joins that job. Where
// workers alone have been started, by the constructor or by our launcher on one host, rank 0's
// process holds the coordinator and the servers on threads, and the job ends with it; so it does
// where this worker is the only one.
//
// sync: the numbers are those of a ShardedStrategy with as many micro-batches, bit for bit, as long
// as nobody is lost. What a lost worker had to do of each batch is not done any more; of
// evaluate() and predict() the others do it. bounded(k) and async: each worker trains its part of
// each batch by updates of its own, at its own pace; its losses and what it evaluates, predicts and
// reads with load_weights() are its own, by the weights that it sees. What it does when the others
// are done the others do not see; buffers (running means) and parameters that are not trained are
// its own.
//
// One model, compiled once, unless this worker is alone with servers of its own.
class ParameterServerStrategy : public Strategy {
 public:
  // Throws ConfigError: other numbers than a launcher has started, workers without servers of
  // another launcher than ours or on several hosts, numbers and words out of range, all before any
  // socket is opened.
  explicit ParameterServerStrategy(const ParameterServerOptions& options = {});
  // A worker of a job that is there, with options.workers; servers and threads are not looked at.
  ParameterServerStrategy(const ps::WorkerOptions& worker, const ParameterServerOptions& options);
  ~ParameterServerStrategy() override;

  int rank() const override { return worker_.rank; }
  int size() const override { return options_.workers; }
  // Leaves the job; who holds servers waits until the others have left, too. A worker that this
  // process started and that failed is a warning in the log.
  void close() override;
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  void begin();
  void host(int listen_fd);

  ParameterServerOptions options_;
  ps::WorkerOptions worker_;
  std::string settings_;  // that the workers must agree in
  std::unique_ptr<CompanionWorkers> companions_;
  std::unique_ptr<HostedJob> hosted_;  // null: others hold the servers
  bool compiled_ = false;
  // Of the model that was spread last, which may have gone before close().
  std::shared_ptr<ServedParameters> parameters_;
};

}  // namespace trireme
