//! A bounded channel from one thread to one asynchronous reader, of any runtime.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A channel that holds so many items at most.
pub(super) fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            items: VecDeque::new(),
            waker: None,
            is_ended: false,
            is_closed: false,
        }),
        room: Condvar::new(),
        capacity,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The blocking end. The channel has ended when it is dropped.
pub(super) struct Sender<T>(Arc<Shared<T>>);

/// The reading end. The channel is closed when it is dropped.
pub(super) struct Receiver<T>(Arc<Shared<T>>);

/// Nobody reads any more.
#[derive(Debug)]
pub(super) struct Closed;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Told when there is room for an item, or when the channel is closed.
    room: Condvar,
    capacity: usize,
}

struct State<T> {
    items: VecDeque<T>,
    /// Of the task that waits for an item.
    waker: Option<Waker>,
    is_ended: bool,
    is_closed: bool,
}

impl<T> Sender<T> {
    /// Waits for room, and puts the item in.
    pub(super) fn send(&self, item: T) -> Result<(), Closed> {
        let mut state = self.0.lock();
        while !state.is_closed && state.items.len() >= self.0.capacity {
            state = self
                .0
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_closed {
            return Err(Closed);
        }
        state.items.push_back(item);
        wake(state);
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_ended = true;
        wake(state);
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` where all were read and no more will come.
    pub(super) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if let Some(item) = state.items.pop_front() {
            drop(state);
            self.0.room.notify_one();
            return Poll::Ready(Some(item));
        }
        if state.is_ended {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let unread = std::mem::take(&mut state.items);
        drop(state);
        self.0.room.notify_one();
        drop(unread);
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the reader, whose executor may run at once and take the lock.
fn wake<T>(mut state: MutexGuard<'_, State<T>>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::thread;

    use super::*;

    #[test]
    fn items_come_in_order_through_a_channel_that_is_too_small_for_them() {
        let (sender, mut receiver) = channel(2);
        let thread = thread::spawn(move || {
            for item in 0..1000 {
                sender.send(item).unwrap();
            }
        });
        let items = futures_executor::block_on(async {
            let mut items = Vec::new();
            while let Some(item) = poll_fn(|context| receiver.poll_next(context)).await {
                items.push(item);
            }
            items
        });
        assert!(items.into_iter().eq(0..1000));
        thread.join().unwrap();
    }

    #[test]
    fn a_sender_that_waits_for_room_learns_that_nobody_reads() {
        let (sender, receiver) = channel(1);
        sender.send(1).unwrap();
        let thread = thread::spawn(move || sender.send(2).is_err());
        drop(receiver);
        assert!(thread.join().unwrap());
    }
}
