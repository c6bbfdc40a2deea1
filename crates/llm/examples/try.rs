use std::sync::Arc;
use metron_llm::*;
use metron_llm::hub::*;
use metron_engine::*;
use metron_trace::*;
struct Fcfs(Vec<RequestId>);
impl Scheduler for Fcfs {
    fn observe(&mut self, e: Event<'_>) { match e { Event::Arrived(v)=>self.0.push(v.id()), Event::Finished(i)|Event::Aborted(i)=>self.0.retain(|x|*x!=i), _=>{} } }
    fn plan(&mut self, p:&mut Planner<'_>)->Result<Wake,Refused>{ for &id in &self.0 { let _=p.admit(id,0,0); p.run(id,u32::MAX)?; } Ok(Wake::OnEvent) }
}
struct Show(Vec<(u32,u32)>, Vec<StepRecord>);
impl StepObserver for Show { fn stepped(&mut self, s:&StepRecord, t:&[Token], _: &[TextPiece])->Result<(),ObserverError>{ for t in t { self.0.push((t.request.0,t.id.unwrap())); } self.1.push(s.clone()); Ok(()) } }
fn main() {
    let path: std::path::PathBuf = std::env::args().nth(1).unwrap().into();
    let dtype = std::env::args().nth(2).map(|d| d.parse().unwrap());
    let files = ModelFiles{ id:"x".into(), source:"p".into(), format:"gguf".into(), config:ConfigSource::Gguf(path.clone()), weights:WeightFiles::Gguf(path.clone()), tokenizer:TokenizerSource::None, chat_template:None, sha256:None };
    let t=std::time::Instant::now();
    let m=Arc::new(LoadedModel::load(&files,&LoadOptions{dtype,..Default::default()}).unwrap());
    println!("loaded {:?} {:?}", t.elapsed(), m.info());
    let mut ex=CandleExecutor::new(m.clone(),KvPool{block_size:16,num_blocks:4096},None,TextStreams::default()).unwrap();
    let run=|ex:&mut CandleExecutor, prompts:Vec<Vec<u32>>, out:u32| {
        let limits=Limits{block_size:16,num_blocks:4096,max_num_seqs:64,max_model_len:4096};
        let subs:Vec<Submission>=prompts.into_iter().enumerate().map(|(i,p)|Submission{request:Request{id:RequestId(i as u32),arrived_at:Timestamp::ZERO,prompt_tokens:p.len() as u32,output_tokens:Some(out),max_tokens:out,class:0,priority:0,deadlines:None,sampling:Sampling::GREEDY},prompt:p}).collect();
        let mut show=Show(vec![],vec![]);
        ex.restart();
        Engine{policy:"x",limits,max_concurrency:None,cost_model:None}.run(ex,&mut Fcfs(vec![]),subs,&mut show).unwrap();
        show
    };
    let s=run(&mut ex, vec![if m.config().vocab_size>1000 {vec![504,3575,282,4649,314]} else {vec![1]}], 24);
    println!("{:?}", s.0.iter().map(|x|x.1).collect::<Vec<_>>());
    let s=run(&mut ex, vec![vec![1]], 24);
    println!("{:?}", s.0.iter().map(|x|x.1).collect::<Vec<_>>());
    if std::env::args().nth(3).is_some() { return }
    for b in [1usize,2,4,8,16,32] {
        let s=run(&mut ex, (0..b).map(|i| (0..128u32).map(|j| (j*37+i as u32*101)%40000+100).collect()).collect(), 12);
        let d: Vec<&StepRecord>=s.1.iter().filter(|x| x.tokens() as usize==b).skip(2).collect();
        let mut ts: Vec<f64>=d.iter().map(|x|x.took().as_secs_f64()).collect(); ts.sort_by(f64::total_cmp);
        let fw: f64=d.iter().map(|x|x.phases.forward.unwrap().as_secs_f64()).sum::<f64>()/d.iter().map(|x|x.took().as_secs_f64()).sum::<f64>();
        println!("decode b={b} step {:.2} ms, {:.0} tok/s, outside forward {:.2} %", ts[ts.len()/2]*1e3, b as f64/ts[ts.len()/2], (1.0-fw)*100.0);
    }
    for n in [128usize,256,512,1024,2048] {
        let s=run(&mut ex, (0..3).map(|i| (0..n as u32).map(|j| (j*37+i as u32*101)%40000+100).collect()).collect(), 1);
        let _=&s; 
        let s=run(&mut ex, vec![(0..n as u32).map(|j| (j*37)%40000+100).collect()], 1);
        println!("prefill {n}: {:.1} ms {:.0} tok/s", s.1[0].took().as_secs_f64()*1e3, n as f64/s.1[0].took().as_secs_f64());
    }
}
