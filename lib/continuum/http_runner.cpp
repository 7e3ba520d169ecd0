// Mode http: each event is POSTed to a webhook, the status of the answer is the verdict.
#include "continuum/http_client.hpp"
#include "continuum/runner.hpp"
#include "continuum/subscription.hpp"

#include <utility>

namespace continuum {

namespace {

class HttpRunner final : public Runner, public std::enable_shared_from_this<HttpRunner> {
 public:
  explicit HttpRunner(Subscription& subscription)
      : subscription_(subscription),
        site_(subscription.site()),
        handler_(subscription.handler()),
        client_(site_.place.executor, parse_http_url(handler_->spec.url)) {}

  void start_ready() override {
    while (running_ < handler_->spec.concurrency && subscription_.may_start()) {
      const auto event = subscription_.take(Clock::now());
      if (!event) {
        return;
      }
      start(*event);
    }
  }

  [[nodiscard]] bool running() const override { return running_ > 0; }

  asio::awaitable<void> end(Leave) override {
    client_.stop();
    running_ = 0;
    co_return;
  }

 private:
  void start(const Window::Event& event) {
    HttpDelivery delivery;
    delivery.topic = site_.place.topic.name;
    delivery.group = site_.place.options.group;
    delivery.partition = site_.partition_of(event);
    delivery.offset = event.offset;
    delivery.attempt = event.attempt;
    delivery.fence = site_.tenure.fence;
    delivery.generation = site_.tenure.passed;
    delivery.how = site_.place.replay != nullptr ? HttpDelivery::How::replayed : HttpDelivery::How::worked;
    ++running_;
    client_.post(delivery, event.line, handler_->spec.timeout.value_or(http_timeout_default),
                 [weak = weak_from_this(), offset = event.offset](const HttpAnswer& answer) {
                   const auto self = weak.lock();
                   if (self && self->site_.tenure.holds()) {
                     self->judge(offset, answer);
                   }
                 });
  }

  void judge(Offset offset, const HttpAnswer& answer) {
    --running_;
    const Verdict verdict = verdict_of(answer);
    if (verdict == Verdict::down) {
      subscription_.put_back(offset);
      subscription_.set_down(answer.why);
    } else {
      subscription_.set_up();
      subscription_.settle(offset, verdict, answer.why, {}, answer.retry_after);
    }
    site_.wake.notify();
  }

  Subscription& subscription_;
  Site& site_;
  const std::shared_ptr<Handler> handler_;  // the subscription may have another by now
  HttpClient client_;
  std::size_t running_ = 0;
};

}  // namespace

std::shared_ptr<Runner> make_http_runner(Subscription& subscription) {
  return std::make_shared<HttpRunner>(subscription);
}

}  // namespace continuum
