//! The socket of a service manager (`sd_notify(3)`), and one of ours in its place.
//!
//! Ours has an abstract address: it needs no directory, and goes with us. Anybody may write to
//! that, so each message names its sender, by the kernel's word. What is passed on has us as its
//! sender: the manager listens to the main process of a service alone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};

use super::Pid;

/// A manager takes 4 KiB (`NOTIFY_BUFFER_MAX` of systemd); what is longer is its own to refuse.
const TEXT_MAX: usize = 64 * 1024;

/// The kernel takes no more descriptors in one message (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;

/// Room for so many, and for the sender: in words, so that it is aligned.
const CONTROL_WORDS: usize = 160;

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) text: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// A pid of our namespace, 0 for none; and the user.
    pub(crate) sender: Option<(Pid, u32)>,
}

/// See above.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: UnixDatagram,
    name: Vec<u8>,
}

impl NotifySocket {
    /// One that can be written to at once.
    pub(crate) fn open() -> io::Result<Self> {
        let name = format!("incumbent/notify/{:016x}", fastrand::u64(..)).into_bytes();
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket, name })
    }

    /// As `NOTIFY_SOCKET` names it.
    pub(crate) fn address(&self) -> OsString {
        OsString::from_vec([b"@", &*self.name].concat())
    }

    /// Waits for the next message. rustix cannot read it: its pid of a sender is never 0, and a
    /// process outside of our namespace has that.
    #[allow(clippy::cast_ptr_alignment, reason = "what is read need not be aligned")]
    pub(crate) fn receive(&self) -> io::Result<Message> {
        let mut text = vec![0_u8; TEXT_MAX];
        let mut control = [0_u64; CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
        // SAFETY: a struct of integers and pointers, for which zero is valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let length = loop {
            let flags = libc::MSG_CMSG_CLOEXEC;
            // SAFETY: the header names two places of ours, with their lengths.
            let got = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, flags) };
            if let Ok(length) = usize::try_from(got) {
                break length;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        text.truncate(length);
        let (mut descriptors, mut sender) = (Vec::new(), None);
        // SAFETY: the kernel has filled in what the header names, each item with its length; its
        // descriptors are ours alone. What is read need not be aligned.
        unsafe {
            let mut item = libc::CMSG_FIRSTHDR(&raw const header);
            while !item.is_null() {
                let data = libc::CMSG_DATA(item);
                let whole: usize = (*item).cmsg_len as _;
                let length = whole.saturating_sub(libc::CMSG_LEN(0) as usize);
                match ((*item).cmsg_level, (*item).cmsg_type) {
                    (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                        for at in 0..length / size_of::<RawFd>() {
                            let place = data.add(at * size_of::<RawFd>());
                            let number = place.cast::<RawFd>().read_unaligned();
                            descriptors.push(OwnedFd::from_raw_fd(number));
                        }
                    }
                    (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
                        if length >= size_of::<libc::ucred>() =>
                    {
                        let by = data.cast::<libc::ucred>().read_unaligned();
                        sender = Some((Pid::try_from(by.pid).unwrap_or(0), by.uid));
                    }
                    _ => {}
                }
                item = libc::CMSG_NXTHDR(&raw const header, item);
            }
        }
        Ok(Message { text, descriptors, sender })
    }

    /// A word to ourselves, which arrives after all that was said before. Waits for room.
    pub(crate) fn say_to_ourselves(&self, within: Duration) -> io::Result<()> {
        let address = SocketAddr::from_abstract_name(&self.name)?;
        let speaker = UnixDatagram::unbound()?;
        speaker.set_write_timeout(Some(within))?;
        loop {
            match speaker.send_to_addr(b"\n", &address) {
                // A signal, which are few.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(drop),
            }
        }
    }
}

/// Whether there can be one of ours in the place of the manager's at `address`: a socket of another
/// kind (vsock(7)) is reached from everywhere.
pub(crate) fn is_of_a_manager(address: &OsStr) -> bool {
    manager(address).is_ok()
}

fn manager(address: &OsStr) -> io::Result<SocketAddr> {
    match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(address),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Says `text` to the manager at `address`, with open files. It waits where that takes no more.
pub(crate) fn notify(address: &OsStr, text: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    // Each time: it may have been started again, with another socket at that path.
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&manager(address)?)?;
    let files: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut along = SendAncillaryBuffer::new(&mut room);
    if !files.is_empty() && !along.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(text)];
    retry_on_intr(|| sendmsg(&socket, &parts, &mut along, SendFlags::NOSIGNAL))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    /// Of a machine that hangs.
    const A_WHILE: Duration = Duration::from_mins(5);

    /// From a program through two sockets: the text, the open file and the sender.
    #[test]
    fn a_message_is_passed_on_with_its_files() {
        let (ours, theirs) = (NotifySocket::open().unwrap(), NotifySocket::open().unwrap());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        let text = b"FDSTORE=1\nFDNAME=kept";
        notify(&ours.address(), text, &[file.into()]).unwrap();
        let message = ours.receive().unwrap();
        assert_eq!(message.text, text);
        let me = (std::process::id(), rustix::process::geteuid().as_raw());
        assert_eq!(message.sender, Some(me));
        notify(&theirs.address(), &message.text, &message.descriptors).unwrap();
        let mut passed_on = theirs.receive().unwrap();
        assert_eq!((&*passed_on.text, passed_on.descriptors.len()), (&text[..], 1));
        let mut file = std::fs::File::from(passed_on.descriptors.remove(0));
        let mut kept = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "kept");
        ours.say_to_ourselves(A_WHILE).unwrap();
        assert_eq!(ours.receive().unwrap().text, b"\n");
    }

    /// Symptom: what a command said last was lost where the manager took its time. Cause: the word
    /// after it was not said to a full socket. It is said once there is room.
    #[test]
    fn a_word_to_ourselves_waits_for_room() {
        let ours = NotifySocket::open().unwrap();
        let address = SocketAddr::from_abstract_name(&ours.name).unwrap();
        // Each from another one, which has a limit of its own.
        let is_taken = || {
            let speaker = UnixDatagram::unbound().unwrap();
            speaker.set_nonblocking(true).unwrap();
            speaker.send_to_addr(b"WATCHDOG=1", &address).is_ok()
        };
        let said = std::iter::repeat_with(is_taken).take_while(|is_taken| *is_taken).count();
        ours.say_to_ourselves(Duration::from_millis(1)).unwrap_err();
        std::thread::scope(|scope| {
            let speaks = scope.spawn(|| ours.say_to_ourselves(A_WHILE));
            for _ in 0..said {
                assert_eq!(ours.receive().unwrap().text, b"WATCHDOG=1");
            }
            assert_eq!(ours.receive().unwrap().text, b"\n");
            speaks.join().unwrap().unwrap();
        });
    }

    /// As many files as one message takes; one that is not there is an error, and no panic.
    #[test]
    fn limits_of_a_message() {
        let ours = NotifySocket::open().unwrap();
        let file = tempfile::tempfile().unwrap();
        let files = |count| -> Vec<OwnedFd> {
            (0..count).map(|_| file.try_clone().unwrap().into()).collect()
        };
        notify(&ours.address(), b"FDSTORE=1", &files(DESCRIPTORS_MAX)).unwrap();
        assert_eq!(ours.receive().unwrap().descriptors.len(), DESCRIPTORS_MAX);
        notify(&ours.address(), b"FDSTORE=1", &files(DESCRIPTORS_MAX + 1)).unwrap_err();
        for address in ["", "@", "relative", "vsock:2:1234", "/no/such/socket", "@no-such-socket"] {
            notify(OsStr::new(address), b"READY=1", &[]).unwrap_err();
        }
        assert!(!is_of_a_manager(OsStr::new("vsock:2:1234")));
        assert!(is_of_a_manager(OsStr::new("/run/systemd/notify")));
    }
}
