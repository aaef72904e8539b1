#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "projections/sink.h"

namespace millrace::projections::test {

/// A sink that tells before and after each thing that it does to its server, for tests that stop
/// there for good. Of a transaction's rows it tells of the first two.
class SteppingKind final : public SinkKind {
 public:
  using AtStep = std::function<void(std::string_view)>;
  SteppingKind(std::shared_ptr<const SinkKind> kind, AtStep at_step)
      : kind_(std::move(kind)), at_step_(std::move(at_step)) {}

  SinkShape kept(SinkShape shape) const override { return kind_->kept(std::move(shape)); }
  Result<void> check(const SinkShape& shape) const override { return kind_->check(shape); }
  std::string describe(const SinkShape& shape) const override { return kind_->describe(shape); }
  std::unique_ptr<Sink> make(const SinkShape& shape) const override {
    return std::make_unique<Stepping>(kind_->make(shape), at_step_);
  }

 private:
  class Stepping final : public Sink {
    template <typename Call>
    auto stepped(const char* name, Call call) {
      at_step_(std::string("before ") + name);
      auto done = call();
      at_step_(std::string("after ") + name);
      return done;
    }

   public:
    Stepping(std::unique_ptr<Sink> sink, AtStep at_step)
        : sink_(std::move(sink)), at_step_(std::move(at_step)) {}

    Result<std::optional<SinkCheckpoint>> open(const SinkWriter& writer) override {
      return stepped("open", [&] { return sink_->open(writer); });
    }
    Result<void> begin() override {
      rows_ = 0;
      return stepped("begin", [&] { return sink_->begin(); });
    }
    Result<void> write(const SinkRow& row) override {
      if (++rows_ > 2) return sink_->write(row);
      return stepped("write", [&] { return sink_->write(row); });
    }
    Result<void> checkpoint(const SinkCheckpoint& checkpoint) override {
      return stepped("checkpoint", [&] { return sink_->checkpoint(checkpoint); });
    }
    Result<void> commit() override {
      return stepped("commit", [&] { return sink_->commit(); });
    }
    Result<void> finish() override { return sink_->finish(); }
    Result<std::optional<SinkCheckpoint>> position() override { return sink_->position(); }
    Result<void> read(const Visit& visit) override { return sink_->read(visit); }
    Result<void> as_kept(std::vector<Texts>& rows) override { return sink_->as_kept(rows); }
    void interrupt() override { sink_->interrupt(); }

   private:
    const std::unique_ptr<Sink> sink_;
    const AtStep at_step_;
    int rows_ = 0;
  };

  const std::shared_ptr<const SinkKind> kind_;
  const AtStep at_step_;
};

}  // namespace millrace::projections::test
